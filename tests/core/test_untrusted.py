"""A study or dataset from a stranger runs no code and reads or writes no file elsewhere."""

import io
import json
import pickle
import shutil
import tarfile
from contextlib import nullcontext, suppress

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import public_files
from checkout import ROOT
from foretune.core.config import check_config
from foretune.core.errors import ForetuneError
from foretune.core.study_file import read_study
from foretune.core.untrusted import check_condition, refuse_outside
from foretune.data.prepare import prepare_dataset
from foretune.encoders.loading import load_model
from foretune.encoders.streams import read_matrix
from foretune.training.checkpoint import JobState, load_checkpoint


class WritesFile:
    """A pickle that would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


ALLOWED = [
    "year < 2013", "`the year` >= 2013 and place == 'sea'", "split in ['a', 'b']", "a == -1 | b",
    "name.str.startswith('x', na=False)", "not (a + b > 3)", "a.isin([1, 2]) & ~b.isna()",
    "0 < a <= 3", "a != 'it''s'", "index % 5 == 0", "a * 2 > b + 1.5",
]  # fmt: skip
REFUSED = [
    "@os.system('id')", "@pd.eval('1')", "a.to_csv('/tmp/x')", "a.to_pickle('x') == 1",
    "a.__class__ == 1", "__import__('os')", "open('x')", "(lambda: 1)()", "a if b else c",
    "[x for x in a]", "a.map(print)", "a.str.__init__", "x := 1", "a[0]", "f'{a}'",
    "(" * 5000 + "a" + ")" * 5000, "", "a > 9 ** 9 ** 9", "a == 'a' * 999999999",
    "a in [1] * 999999999", "a > (1 << 99999999999)",
]  # fmt: skip


def test_check_condition_allows_comparisons_that_pandas_evaluates():
    table = pd.DataFrame({"a": [1, 2], "b": [True, False], "year": 2010, "the year": 2013,
                          "place": "sea", "split": "a", "name": "xy"})  # fmt: skip
    for condition in ALLOWED:
        check_condition("splits.train", condition)
        if "''" not in condition and "a == -1" not in condition:
            table.query(condition)


@pytest.mark.parametrize("condition", REFUSED)
def test_check_condition_refuses_code(condition):
    with pytest.raises(ForetuneError, match=r"^splits\.train: "):
        check_condition("splits.train", condition)


def test_study_with_code_in_a_condition_is_refused(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    study = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    splits = {"train": f"a.to_csv('{tmp_path}/x')", "test": "a == 1"}
    study["datasets"]["t"] = {"table": "t.csv", "image": "{a}", "label": "a", "splits": splits}
    with pytest.raises(ForetuneError, match=r"datasets\.t\.splits\.train: .*to_csv is not allowed"):
        check_config(study)


def test_study_with_tags_of_python_is_refused(tmp_path):
    (tmp_path / "s.yaml").write_text(f"seed: !!python/object/apply:open ['{tmp_path}/x', w]\n")
    with pytest.raises(ForetuneError, match=r"s\.yaml: cannot be read"):
        read_study(tmp_path / "s.yaml")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc", ".", "a/b"])
@pytest.mark.parametrize("section", ["models", "datasets", "embeddings"])
def test_names_of_a_study_cannot_be_paths(name, section, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    study[section] = {name: {"folder": "resources/mini/clip"}}
    with pytest.raises(ForetuneError, match=rf"(?m)^{section}: "):
        check_config(study)


@pytest.mark.parametrize(
    ("template", "name", "inside"),
    [
        ("{file}", "a/b.png", True),
        ("{file}", "a/../b.png", True),
        ("{file}", "../b.png", False),
        ("{file}", "/etc/passwd", False),
        ("images/{file}", "images/../b.png", False),
        ("../images/{file}", "../images/b.png", True),
        ("../images/{file}", "../images/../b.png", False),
        ("/data/{file}", "/data/b.png", True),
        ("/data/{file}", "/data/../b.png", False),
        ("/{file}", "//data/b.png", True),
        ("image_{row}.png", "image_1.png", True),
    ],
)
def test_refuse_outside_keeps_paths_below_what_the_template_says(template, name, inside):
    refused = pytest.raises(ForetuneError, match=r"lies outside .*write the folder into `image`")
    with nullcontext() if inside else refused:
        refuse_outside("/home/me/table", template, [name])


def test_table_cannot_name_images_elsewhere(tmp_path):
    public_files.put(tmp_path / "secret.png", public_files.encoded("PNG"))
    rows = "".join(f"../secret.png,{'ab'[i % 2]}\n" for i in range(40))
    public_files.put(tmp_path / "data/t.csv", f"file,label\n{rows}".encode())
    spec = {"table": str(tmp_path / "data/t.csv"), "image": "{file}", "label": "label",
            "splits": {"train": "label != ''", "test": "label != ''"}}  # fmt: skip
    with pytest.raises(ForetuneError, match=r"secret\.png: lies outside"):
        prepare_dataset("t", spec, tmp_path / "out", seed=0)


def test_tar_with_paths_elsewhere_writes_nothing_there(tmp_path):
    public_files.clip_benchmark(tmp_path / "tars", ["crow", "jay"], {"train": 40, "test": 8})
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    odd = tmp_path / "tars/test/9.tar"
    with tarfile.open(odd, "w") as tar:
        for name, content in (("../../../up.jpg", public_files.encoded("PNG")),
                              ("../../../up.cls", b"0"), ("/abs.jpg", b"x")):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    spec = {"webdataset": str(tmp_path / "tars"), "root": str(tmp_path / "tars")}
    with suppress(ForetuneError):
        prepare_dataset("t", spec, tmp_path / "out", seed=0)
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before - {odd}
    assert all(path.is_relative_to(tmp_path / "out") for path in new)


def test_pickles_are_not_loaded(tmp_path):
    """As arrays, weights, training states and checkpoints."""
    evil = WritesFile(tmp_path / "written")
    np.save(tmp_path / "x.npy", np.array([evil], dtype=object), allow_pickle=True)
    with pytest.raises(ForetuneError, match=r"x\.npy"):
        read_matrix(tmp_path / "x.npy")
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(evil))
    with pytest.raises(ForetuneError, match=r"raw\.npy"):
        read_matrix(tmp_path / "raw.npy")
    torch.save({"made_from": {}, "state": evil}, tmp_path / "evil.pt")
    assert load_checkpoint(tmp_path / "evil.pt", {}, log=lambda line: None) is None
    torch.save(evil, tmp_path / "evil.pt")
    state = JobState(tmp_path, {}, log=lambda line: None)
    state.running = {"key": "evil.pt"}
    assert state.resume("key") is None
    for name in ("w.pt", "w.bin", "w.npz"):
        torch.save({"state_dict": evil}, tmp_path / name)
        with pytest.raises(ForetuneError):
            load_model({"architecture": "ViT-S-32-alt", "pretrained": str(tmp_path / name)})
    assert not (tmp_path / "written").exists()


def test_tokenizer_of_a_model_lies_in_its_folder(tmp_path):
    """A model's config cannot name a file of merges elsewhere."""
    folder = shutil.copytree(ROOT / "resources/mini/clip", tmp_path / "model")
    (folder / "merges.txt.gz").rename(tmp_path / "merges.txt.gz")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["foretune"]["merges"] = "../merges.txt.gz"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ForetuneError, match=r"model/merges\.txt\.gz"):
        load_model({"folder": folder})
