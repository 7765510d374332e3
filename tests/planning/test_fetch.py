"""Fetching from a server on this machine: broken downloads, wrong files, files already there."""

import errno
import gzip
import json
import os
import re
import shutil
import sys
import tarfile

import pytest
import torch
import yaml

import forked
import hub
import public_files
from checkout import ROOT
from foretune.core.config import check_config
from foretune.core.errors import ForetuneError
from foretune.core.parquet import read_metadata
from foretune.data.prepare import prepare_dataset
from foretune.encoders.loading import load_model
from foretune.planning import download, fetch, fetch_list

pytestmark = pytest.mark.long

SMOKE = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())


@pytest.fixture
def served(tmp_path):
    with hub.serve(tmp_path / "served") as server:
        yield server


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)


def make_config(datasets: dict, tmp_path) -> dict:
    return {**SMOKE, "datasets": datasets, "data": str(tmp_path / "data")}


def list_datasets(config: dict) -> list[fetch_list.DatasetItem]:
    items = fetch_list.list_items(check_config(config), ask=False)
    return [item for item in items if isinstance(item, fetch_list.DatasetItem)]


def fetch_all(config: dict) -> list[str]:
    """Fetch a config's datasets; return the lines that were logged."""
    lines = []
    fetch.fetch_items(list_datasets(config), lines.append)
    return lines


@pytest.fixture
def cifar(tmp_path, served, monkeypatch):
    """A config with CIFAR100, its archive on the server, and the folder it is fetched to."""
    from torchvision.datasets import CIFAR100

    monkeypatch.chdir(ROOT)
    public_files.cifar100(tmp_path / "made", monkeypatch.setattr)
    archive = tmp_path / "served" / CIFAR100.filename
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "made" / CIFAR100.base_folder, CIFAR100.base_folder)
    monkeypatch.setattr(CIFAR100, "url", f"{served.url}/{archive.name}")
    monkeypatch.setattr(CIFAR100, "tgz_md5", public_files.md5(archive))
    config = make_config({"cifar": {"torchvision": "CIFAR100"}}, tmp_path)
    return config, archive, tmp_path / "data/torchvision"


def test_fetch_items_resumes_where_the_connection_broke(cifar, served):
    config, archive, folder = cifar
    served.breaks[archive.name] = 100_000
    assert fetch_all(config) == ["cifar: 100 classes; 300 train, 100 test"]
    assert served.ranges == [(archive.name, 0), (archive.name, 100_000)]
    assert sorted(path.name for path in folder.iterdir()) == ["CIFAR100"]
    fetch_all(config)  # and is not repeated
    assert len(served.ranges) == 2
    spec = check_config(config)["datasets"]["cifar"]
    prepare_dataset("cifar", spec, folder.parent / "out", seed=0)


def test_fetch_items_resumes_a_killed_run(cifar, served):
    config, archive, folder = cifar
    part = folder / f"CIFAR100.downloads/{archive.name}.part"
    public_files.put(part, archive.read_bytes()[:70_000])
    (folder / ".CIFAR100/cifar-100-python").mkdir(parents=True)  # half unpacked
    fetch_all(config)
    assert served.ranges == [(archive.name, 70_000)]
    assert sorted(path.name for path in folder.iterdir()) == ["CIFAR100"]


def test_download_file_starts_again_on_a_server_without_ranges(cifar, served, monkeypatch):
    config, archive, folder = cifar
    part = folder / f"CIFAR100.downloads/{archive.name}.part"
    public_files.put(part, b"x" * 5000)
    send_file = served.send_file

    def send_whole_file(self, file):
        del self.headers["Range"]
        send_file(self, file)

    monkeypatch.setattr(served, "send_file", send_whole_file)
    fetch_all(config)
    assert (folder / "CIFAR100" / archive.name).read_bytes() == archive.read_bytes()


def test_fetch_items_works_on_a_file_system_without_links(cifar, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    config, _, _ = cifar
    assert fetch_all(config) == ["cifar: 100 classes; 300 train, 100 test"]


def test_fetch_items_keeps_a_right_archive_if_the_disk_is_full(cifar, monkeypatch):
    def fail(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    config, archive, folder = cifar
    monkeypatch.setattr(fetch, "link_or_copy", fail)
    with pytest.raises(ForetuneError, match="the disk is full; free some space"):
        fetch_all(config)
    assert [path.name for path in (folder / "CIFAR100.downloads").glob("*.gz*")] == [archive.name]


def test_fetch_items_names_a_wrong_checksum_and_takes_the_right_file_by_hand(cifar):
    config, archive, folder = cifar
    right = archive.read_bytes()
    archive.write_bytes(gzip.compress(b"not it"))
    with pytest.raises(ForetuneError) as caught:
        fetch_all(config)
    message = str(caught.value)
    assert f"{folder}/CIFAR100.downloads/{archive.name}: this is not the file that" in message
    assert "by hand: put cifar-100-python.tar.gz from https://www.cs.toronto.edu" in message
    assert f"into {folder}/CIFAR100.downloads" in message and "Traceback" not in message
    assert not (folder / "CIFAR100").exists()
    archive.unlink()  # as if there were no network
    with pytest.raises(ForetuneError, match=r"cannot be fetched \(HTTP Error 404.*run it again"):
        fetch_all(config)
    public_files.put(folder / "CIFAR100.downloads" / archive.name, right)
    assert fetch_all(config) == ["cifar: 100 classes; 300 train, 100 test"]


def test_fetch_items_leaves_no_folder_if_an_archive_does_not_unpack(cifar, monkeypatch):
    from torchvision.datasets import CIFAR100

    config, archive, folder = cifar
    archive.write_bytes(archive.read_bytes()[:-5000])  # with the checksum of the cut file
    monkeypatch.setattr(CIFAR100, "tgz_md5", public_files.md5(archive))
    with pytest.raises(ForetuneError, match=r"renamed to .*tar\.gz\.wrong: run it again"):
        fetch_all(config)
    assert not (folder / "CIFAR100").exists()


def test_fetch_items_resumes_each_of_several_archives(tmp_path, served, monkeypatch):
    from torchvision.datasets import MNIST

    monkeypatch.chdir(ROOT)
    public_files.mnist(tmp_path / "made")
    shutil.copytree(tmp_path / "made/MNIST/raw", tmp_path / "served")
    archives = [(name, public_files.md5(tmp_path / "served" / name)) for name, _ in MNIST.resources]
    monkeypatch.setattr(MNIST, "mirrors", [f"{served.url}/"])
    monkeypatch.setattr(MNIST, "resources", archives)
    served.breaks = {archives[0][0]: 1000, archives[3][0]: 10}
    lines = fetch_all(make_config({"mnist": {"torchvision": "MNIST"}}, tmp_path))
    assert lines == ["mnist: 10 classes; 60 train, 20 test"]
    assert len(served.ranges) == 6


@pytest.mark.parametrize("change", ["is gone", "has other arguments"])
def test_fetch_items_says_if_torchvision_has_changed(cifar, monkeypatch, change):
    from torchvision.datasets import utils

    config, _, folder = cifar
    if change == "is gone":
        monkeypatch.delattr(utils, "_urlretrieve")
    else:
        monkeypatch.setattr(utils, "_urlretrieve", lambda request, path: None)
    message = r"has no torchvision\.datasets\.utils\._urlretrieve\(url, filename\).*download=True"
    with pytest.raises(ForetuneError, match=message):
        fetch_all(config)
    assert not (folder / "CIFAR100").exists()


def test_fetch_items_says_what_torchvision_cannot_download(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    datasets = {"cars": {"torchvision": "StanfordCars"}, "mine": SMOKE["datasets"]["digits"]}
    with pytest.raises(ForetuneError) as caught:
        fetch_all(make_config(datasets, tmp_path))
    assert "1 of 2 are missing:\ncars: torchvision cannot download it" in str(caught.value)
    assert "clip-benchmark/wds_cars" in str(caught.value)


def test_list_items_has_other_splits_of_one_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    night = {"webdataset": "me/birds", "splits": {"test": "night"}}
    birds = {"webdataset": "me/birds", "shifted": {"night": night}}
    datasets = {"birds": birds, "again": {"webdataset": "me/birds", "caption": "a {}"}}
    patterns = {
        tuple(item.names): fetch_list.get_hub_patterns(item)[2:]
        for item in list_datasets(make_config(datasets, tmp_path))
    }
    assert patterns == {("birds", "again"): ["test/*", "train/*"], ("birds/night",): ["night/*"]}


def test_a_pinned_dataset_has_a_folder_of_its_own(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.chdir(ROOT)
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **k: asked.append(k))
    pinned = {"webdataset": "me/birds", "revision": "a" * 40}
    config = make_config({"birds": pinned, "newest": {"webdataset": "me/birds"}}, tmp_path)
    for item in list_datasets(config):
        fetch.fetch_from_hub(item, item.hub_name)
    assert [(k["revision"], str(k["local_dir"])) for k in asked] == [
        ("a" * 40, f"{tmp_path}/data/me/birds@{'a' * 12}"), (None, f"{tmp_path}/data/me/birds")
    ]  # fmt: skip


def make_model(folder) -> None:
    """Write a small model as open_clip keeps them on the hub, without a config.json."""
    from safetensors.torch import save_file

    from foretune.encoders.imports import open_clip
    from real_size import make_tokenizer

    tower = {"width": 64, "layers": 2}
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "head_width": 32, **tower},
        "text_cfg": {
            "context_length": 64, "vocab_size": 49408, "heads": 2, **tower,
            "hf_tokenizer_name": "me/tiny", "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    }  # fmt: skip
    described = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    public_files.put(folder / "open_clip_config.json", json.dumps(described).encode())
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    make_tokenizer(folder)


def run(script: str, *arguments, cwd, **environment):
    # The imports of this process have set it for this process only.
    clean = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    # The libraries that read the hub's address and its cache's folder when they are imported.
    forget = ("huggingface_hub", "open_clip", "transformers")
    return forked.run(
        ROOT / "workflow_scripts" / script, *arguments, cwd=cwd, env=clean | environment,
        forget=forget,
    )  # fmt: skip


def test_fetch_study_script_fetches_all_that_jobs_without_a_network_need(tmp_path, served):
    """Two tars break off, there is a shifted test and a model; then the hub stops answering."""
    data, home = tmp_path / "served/datasets/me", tmp_path / "home"
    public_files.clip_benchmark(data / "birds", ["crow", "jay"], {"train": 40, "test": 20})
    public_files.put(data / "birds/extra/0.tar", b"not wanted")
    public_files.clip_benchmark(data / "painted", ["jay", "crow"], {"train": 10, "test": 8})
    make_model(tmp_path / "served/models/me/tiny")
    birds = {"webdataset": "me/birds", "shifted": {"painted": {"webdataset": "me/painted"}}}
    study = tmp_path / "study.yaml"
    models = {"tiny": {"hub": "me/tiny", "revision": hub.COMMIT}}
    content = {**SMOKE, "models": models, "datasets": {"birds": birds}}
    study.write_text(yaml.safe_dump({**content, "data": "data"}))
    online = {"HF_ENDPOINT": served.url, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    listed = run("fetch_study.py", "--study", study, "--list", cwd=tmp_path, **online)
    assert listed.returncode == 0, listed.stderr
    lines = listed.stdout.splitlines()
    assert len(lines) == 4 and "webdataset me/birds" in lines[1] and "a-licence" in lines[1]
    assert "0 MB" in lines[1] and "birds/painted" in lines[2] and "tiny" in lines[3]
    assert not (tmp_path / "data").exists() and not home.exists()  # nothing was fetched

    served.breaks = {"1.tar": 3000, "open_clip_model.safetensors": 11_000_000}
    fetched = run("fetch_study.py", "--study", study, cwd=tmp_path, **online)
    assert fetched.returncode == 0, fetched.stdout + fetched.stderr
    assert fetched.stdout.startswith(listed.stdout)
    commit = f"revision {hub.COMMIT}"
    assert f"birds: 2 classes; 40 train, 20 test; {commit}\nbirds/painted: 2" in fetched.stdout
    assert re.search(rf"tiny: weights \w+, {commit}", fetched.stdout)
    assert "1.tar" not in served.breaks  # it did break off
    # huggingface_hub keeps pieces of ten megabytes.
    assert ("open_clip_model.safetensors", 10 << 20) in served.ranges
    assert not (tmp_path / "data/me/birds/extra").exists()
    assert not (tmp_path / "data/me/painted/train").exists()

    offline = {**online, "HF_ENDPOINT": "http://127.0.0.1:9"}
    entry = {"webdataset": "me/birds", "root": "data/me/birds"}
    prepared = run("prepare_dataset.py", "--name", "birds", "--spec", json.dumps(entry), "--seed",
                   0, "--output", "birds", cwd=tmp_path, **offline)  # fmt: skip
    assert prepared.returncode == 0, prepared.stderr
    tiny = json.dumps(models["tiny"])
    embedded = run("embed_images.py", "--model-spec", tiny, "--dataset", "birds", "--prepared",
                   "kept", "--output", "embedded",
                   cwd=tmp_path, **offline)  # fmt: skip
    assert embedded.returncode == 0, embedded.stderr
    assert read_metadata(tmp_path / "embedded/own_text.parquet")
    assert read_metadata(tmp_path / "embedded/train.parquet")["revision"] == hub.COMMIT
    spec = json.dumps({**models["tiny"], "revision": "d" * 40})
    other = run("embed_captions.py", "--model-spec", spec, "--dataset", "birds", "--output", "text",
                cwd=tmp_path, **offline)  # fmt: skip
    assert other.returncode == 1 and "make fetch STUDY" in other.stderr
    with pytest.raises(ForetuneError, match=r"me/other.*make fetch STUDY=.*by hand: put them"):
        load_model({"hub": "me/other"})

    (tmp_path / "data/me/birds/test/1.tar").unlink()
    served.ranges.clear()
    again = run("fetch_study.py", "--study", study, cwd=tmp_path, **online)
    assert again.returncode == 0, again.stdout + again.stderr
    assert served.ranges == [("1.tar", 0)]


def test_fetch_study_script_names_what_the_hub_does_not_have(tmp_path, served):
    """In a process of its own, because huggingface_hub reads the address when it is imported."""
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump(make_config({"x": {"huggingface": "me/no"}}, tmp_path)))
    online = {"HF_ENDPOINT": served.url, "HF_HOME": str(tmp_path / "home")}
    done = run("fetch_study.py", "--study", study, cwd=ROOT, **online)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "x: me/no cannot be fetched (RepositoryNotFoundError: " in done.stderr
    assert "`hf auth login`" in done.stderr


def test_fetch_study_script_fetches_nothing_if_the_network_is_forbidden(
    tmp_path, monkeypatch, capsys
):
    import fetch_study

    monkeypatch.chdir(ROOT)
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump(make_config({"digits": {"torchvision": "MNIST"}}, tmp_path)))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "argv", ["fetch_study.py", "--study", str(study)])
    with pytest.raises(ForetuneError, match="HF_HUB_OFFLINE is set, so nothing is fetched"):
        fetch_study.work()
    assert "CC BY-SA 3.0  about 12 MB  torchvision MNIST" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--list"])
    fetch_study.work()
