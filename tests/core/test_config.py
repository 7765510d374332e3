"""Checking a study's config, its defaults, the grids, and dry runs of whole studies."""

import copy
import os
import re
import subprocess
import sys

import pytest
import yaml

from checkout import ROOT
from foretune.core.config import CONFIG_SCHEMA, check_config, list_measure_names
from foretune.core.errors import ForetuneError
from foretune.core.grid import expand_grid, list_parts
from foretune.core.study_file import read_study
from smoke import ENV, run_snakemake

STUDY = yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)  # the config's paths are relative to the checkout


def change_study(path: str, value) -> dict:
    """Return the default study with another value at a path of keys, such as "methods/full"."""
    config = copy.deepcopy(STUDY)
    *parents, last = path.split("/")
    entry = config
    for key in parents:
        entry = entry[key]
    entry[last] = value
    return config


MISTAKES = [
    ("metods", {}, "metods: unknown key; did you mean methods?"),  # codespell:ignore
    ("methods/prompt", {}, "methods.prompt: unknown key; known: full, bitfit, attention, lora,"),
    ("methods/lorra", {}, "methods.lorra: unknown key; did you mean lora?"),
    ("methods/full/rank", [4], "methods.full.rank: unknown key"),
    ("methods/lora", {"learning_rate": [1.0], "rank": [0]}, "methods.lora.rank.0: 0 is less"),
    ("methods/full/wise_ft", [1.5], "methods.full.wise_ft.0: 1.5"),
    (
        "methods/full/search",
        {"kind": "random"},
        "methods.full.search: a random search needs trials, the number of points",
    ),
    (
        "methods/full/search",
        {"kind": "random", "trials": 9},
        "search.trials: is 9, but the grid has 1 points",
    ),
    ("methods/lora/dropout", 1, "methods.lora.dropout: 1 is greater than or equal to the max"),
    ("methods/flyp", {"learning_rate": [1.0], "batch_size": 1}, "methods.flyp.batch_size: 1 is"),
    ("methods/flyp", {}, "methods.flyp.learning_rate: is missing"),
    (
        "methods/lp_ft",
        {"learning_rate": [1.0], "towers": "both"},
        "methods.lp_ft.towers: 'both' is not one of ['image']",
    ),
    (
        "methods/lp_ft",
        {"learning_rate": [1.0], "probe": {"learning_rate": 1.0}},
        "methods.lp_ft.probe.learning_rate: 1.0 is not a list: write [1.0]",
    ),
    ("methods/lp_plus_plus", {"optimizer": "adamw"}, "lp_plus_plus.optimizer: 'adamw' is not one"),
    ("methods/linear_probe/wise_ft", [0.5], "methods.linear_probe.wise_ft: unknown key"),
    ("methods/text_probe", {}, "methods.text_probe.learning_rate: is missing"),
    (
        "methods/text_probe",
        {"learning_rate": [1.0], "search": {"kind": "halving"}},
        "methods.text_probe.search: text_probe trains all trials together; use grid",
    ),
    ("methods/linear_probe/search", {"kind": "halving"}, "trains all trials together; use grid"),
    ("methods/full/learning_rat", [1.0], "methods.full.learning_rat: unknown key; did you mean"),
    ("methods/full/learning_rate", [-0.1], "methods.full.learning_rate.0: -0.1"),
    ("methods/full/learning_rate", ["1e-3"], "YAML reads 1e-3 as text: write 1.0e-3"),
    ("methods/full/epochs", 0, "methods.full.epochs: 0"),
    ("methods/full/optimizer", "adam", "methods.full.optimizer: 'adam' is not one of"),
    ("datasets/birds", {"caption": "a {}"}, "datasets.birds: has no source; give one of: parquet"),
    (
        "datasets/birds",
        {"table": "a.csv", "image": "{b}", "label": "c"},
        "datasets.birds.splits: is missing",
    ),
    ("datasets/birds", {"folder": "no/such"}, "datasets.birds.folder: no such file or folder"),
    ("datasets/birds", {"folder": ".", "caption": "a bird"}, "needs a {} where the class name"),
    ("datasets/a bird", {"folder": "."}, "a bird"),
    ("models/mine", {"folder": "a", "architecture": "b"}, "models.mine: has folder, arch"),
    ("models/mine", {"architecture": "b"}, "models.mine.pretrained: is missing"),
    ("models/mine", {"gpus": 2}, "give one of: folder, hub, architecture with pretrained"),
    ("models/mine", {"hub": "a/b", "architecture": "c", "pretrained": "d"}, "mine: has hub, arch"),
    ("models/mine", {"hub": "mine"}, "models.mine.hub: 'mine' is not owner/name"),
    ("models/clip_mini/quick_gelu", True, "models.clip_mini.quick_gelu: needs architecture"),
    ("models/clip_mini/revision", "a" * 40, "models.clip_mini.revision: needs hub"),
    (
        "models/mine",
        {"hub": "a/b", "revision": "main"},
        "models.mine.revision: 'main' is not a commit: give all 40 hexadecimal digits",
    ),
    ("seed", 2**64, "seed: 18446744073709551616 is greater than the maximum of 4294967295"),
    ("methods/full/epochs", 10**30, "methods.full.epochs: 1000000000000000000000000000000 is gre"),
    ("methods/full/learning_rate", [10**90], "methods.full.learning_rate.0: 1000"),
    ("methods/full/warmup_epochs", 1e300, "methods.full.warmup_epochs: 1e+300 is greater"),
    ("methods/lora", {"learning_rate": [1.0], "rank": [10**9]}, "rank.0: 1000000000 is greater"),
    ("models/clip_mini/gpus", 0, "models.clip_mini.gpus: 0 is less"),
    ("datasets/mnist/shards", 0, "datasets.mnist.shards: 0 is less"),
    (
        "datasets/land",
        {"table": "a.csv", "image": "{row}.png", "label": "b", "splits": {"test": "c > 1"}},
        "datasets.land.splits: does not say which rows are train",
    ),
    ("datasets/birds", None, "datasets.birds: None is not a mapping"),
    ("datasets", {True: {"folder": "."}}, "datasets.True: this key is not a text; put it into"),
    ("methods/full/parts", 0, "methods.full.parts: 0 is less than the minimum of 1"),
    ("methods/full/epochs", 1.0, "methods.full.epochs: 1.0 is not an integer"),
    ("methods/full/learning_rate", [float("nan")], "nan is not a number"),
    ("temperature_scaling", "val", "temperature_scaling: 'val' is not"),
    ("methods/full/learning_rate", 0.1, "0.1 is not a list: write [0.1]"),
    ("models", {}, "models: {}"),
    (
        "methods/full/models",
        ["clip_min"],
        "full.models: clip_min: unknown model; did you mean clip",
    ),
    ("methods/full/models", [], "methods.full.models: []"),
    ("methods/full/models", "clip_mini", "'clip_mini' is not a list: write [clip_mini]"),
    ("datasets/mnist/shifted", {"a": {"folder": "no"}}, "mnist.shifted.a.folder: no such file"),
    ("datasets/mnist/shifted", {"a": {}}, "datasets.mnist.shifted.a: has no source; give one of"),
    ("datasets/mnist/shifted", {"a": {"folder": ".", "classes": []}}, "shifted.a.classes: unknown"),
    (
        "forecast",
        {"datasets": {"mnist": {"folder": "."}}},
        "forecast.datasets.mnist: the study has",
    ),
    ("forecast", {"datasets": {"birds": {}}}, "forecast.datasets.birds: has no source; give one"),
    ("forecast", {"datasets": {"birds": {"folder": "no"}}}, "datasets.birds.folder: no such file"),
    (
        "forecast",
        {"datasets": {"birds": {"folder": ".", "shifted": {}}}},
        "forecast.datasets.birds.shifted: unknown key",
    ),
    ("forecast", {"study": "tests"}, "forecast.study: tests: not a study's results"),
    ("forecast", {"weight": 2}, "forecast.weight: 2 is greater"),
    (
        "measures",
        {"alsso": []},  # codespell:ignore
        "measures.alsso: unknown key; did you mean also?",  # codespell:ignore
    ),
    ("measures", {"also": ["entropy"]}, "measures.also: entropy: unknown; did you mean entropy_"),
    ("measures", {"without": ["imm"]}, "measures.without: imm: unknown; did you mean iimm?"),
    ("measures", {"emms_sources": ["clip"]}, "measures.emms_sources: clip: unknown"),
    ("datasets/mnist/shots", [4], "datasets.mnist.shots: belongs in a method's entry, for all"),
    (
        "forecast",
        {"datasets": {"new": {"folder": ".", "seeds": [1]}}},
        "forecast.datasets.new.seeds: belongs in a method's entry, for all datasets: methods.",
    ),
    ("methods/linear_probe/features", "hidden", "methods.linear_probe.features: 'hidden' is not"),
    (
        "methods/full/features",
        "pooled",
        "methods.full.features: only linear_probe has it; other methods need the projected",
    ),
    ("measures", {"sample": 10}, "measures.sample: 10 is less than"),
    ("embeddings", {"mine": {"images": "config.yaml"}}, "embeddings.mine.texts: is missing"),
    (
        "embeddings",
        {"mine": {"images": "config.yaml", "texts": "no.npy"}},
        "embeddings.mine.texts: no such file or folder: no.npy",
    ),
    (
        "datasets/mnist/shifted",
        {"test": {"folder": "."}},
        "datasets.mnist.shifted: 'test' does not",
    ),
]


@pytest.mark.parametrize(("path", "value", "message"), MISTAKES)
def test_check_config_names_mistakes(path, value, message):
    with pytest.raises(ForetuneError) as caught:
        check_config(change_study(path, value))
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


def test_check_config_accepts_the_studies_and_fills_in_defaults():
    for path in (ROOT / "config.yaml", ROOT / "studies/smoke.yaml"):
        study = check_config(yaml.safe_load(path.read_text()))
        assert study["seed"] == 0
        assert study["methods"]["linear_probe"]["batch_size"] == 128
        assert study["methods"]["full"]["models"] == list(study["models"])
        assert study["datasets"]["digits"]["shifted"] == {}
        assert study["measures"]["bootstrap"] == 200 and study["embeddings"] == {}


def test_the_largest_seed_and_epoch_fit_a_random_generator_of_torch():
    import torch

    schema = yaml.safe_load(CONFIG_SCHEMA.read_text())
    seed = schema["properties"]["seed"]["maximum"]
    epochs = schema["$defs"]["recipe"]["properties"]["epochs"]["maximum"]
    torch.Generator().manual_seed(seed * 10_000 + epochs)  # as the training draws


@pytest.mark.parametrize("text", ["a: " + "9" * 5000, "a: " + "[" * 5000, "a: !!python/tuple"])
def test_read_study_refuses_odd_yaml_in_one_message(text, tmp_path):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ForetuneError, match=r"s\.yaml: cannot be read: "):
        read_study(tmp_path / "s.yaml")


def test_list_measure_names_agrees_with_the_registry():
    from foretune.measures.compute import MEASURES

    assert sorted(list_measure_names()) == sorted(MEASURES)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("methods/full/learning_rate", [-0.1], "methods.full.learning_rate.0"),
        ("methods/lorra", {}, "methods.lorra: unknown key"),
        ("datasets/birds", {}, "datasets.birds: has no source"),
        ("seeed", 1, "seeed: unknown key; did you mean seed?"),
    ],
)
def test_snakemake_stops_at_a_mistake_before_any_job(tmp_path, path, value, message):
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump(change_study(path, value)))
    done = run_snakemake(
        "-m", "snakemake", "-n", "--configfile", study, cwd=ROOT, env=ENV | {"COLUMNS": "200"}
    )
    assert done.returncode != 0
    printed = done.stdout
    assert message in printed
    assert "Traceback" not in printed and "Job stats" not in printed


def test_expand_grid_is_a_product_that_parts_divide():
    search = {"kind": "grid"}
    recipe = {"learning_rate": [0.1, 0.01], "weight_decay": [0, 1, 2], "parts": 1, "search": search}
    whole = expand_grid(recipe)
    assert [t["trial"] for t in whole] == list(range(6))
    assert len({(t["learning_rate"], t["weight_decay"]) for t in whole}) == 6
    parts = [expand_grid({**recipe, "parts": 4}, part) for part in range(4)]
    assert sorted((t for part in parts for t in part), key=lambda t: t["trial"]) == whole
    assert [part for part in range(4) if parts[part]] == list_parts({**recipe, "parts": 4})
    assert len(list_parts({**recipe, "parts": 10**6})) == 6


def test_trials_keep_their_part_when_the_grid_grows():
    recipe = {"search": {"kind": "grid"}, "parts": 3, "weight_decay": [1e-4]}
    small = {**recipe, "learning_rate": [1e-3, 1e-5, 1e-4]}
    large = {**recipe, "learning_rate": [3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6]}
    for part in range(3):
        rates = [{t["learning_rate"] for t in expand_grid(grid, part)} for grid in (small, large)]
        assert rates[0] == rates[1] & set(small["learning_rate"])


def test_expand_grid_draws_a_random_search_by_its_seed():
    recipe = {"learning_rate": [0.1, 0.01], "rank": [2, 4, 8], "weight_decay": [0, 1], "parts": 1}
    whole = expand_grid({**recipe, "search": {"kind": "grid"}})
    assert len(whole) == 12 and {t["rank"] for t in whole} == {2, 4, 8}
    drawn = [
        expand_grid({**recipe, "search": {"kind": "random", "trials": 5, "seed": seed}})
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(trials) == 5 and all(t in whole for t in trials) for trials in drawn)


def test_check_config_refuses_halving_in_several_jobs():
    with pytest.raises(ForetuneError, match="halving compares all trials in one job"):
        config = change_study("methods/full/learning_rate", [0.1, 0.2])
        config["methods"]["full"] |= {"search": {"kind": "halving"}, "parts": 2}
        check_config(config)


def test_config_module_imports_no_torch():
    code = (
        "import sys; sys.path.insert(0, 'workflow_scripts'); import foretune.core.config;"
        "print([m for m in ('torch', 'pyarrow', 'numpy', 'pandas') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "[]\n"


def test_paper_study_has_1620_trials():
    study = yaml.safe_load((ROOT / "studies/paper.yaml").read_text())
    methods = check_config(study)["methods"]
    trials = {name: len(recipe["models"]) * len(expand_grid(recipe))
              for name, recipe in methods.items()}  # fmt: skip
    assert trials == {
        "full": 48, "bitfit": 12, "attention": 12, "lora": 48, "clip_adapter": 48,
        "linear_probe": 12,
    }  # fmt: skip
    assert sum(trials.values()) * len(study["datasets"]) == 1620
    for recipe in methods.values():
        assert (recipe["optimizer"], recipe["momentum"], recipe["schedule"]) == (
            "sgd", 0.9, "constant"
        )  # fmt: skip
        assert (recipe["epochs"], recipe["batch_size"]) == (30, 128)
    assert methods["clip_adapter"]["ratio"] == 0.2


# A sitecustomize.py, which Python imports first: no import of torch, no network.
CUT_OFF = """
import importlib.abc, socket, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "open_clip", "datasets"):
            raise ImportError(f"a dry run imports {name}")

def refuse(self, address, *_):
    raise OSError(f"a dry run connects to {address}")

sys.meta_path.insert(0, Refuse())
socket.socket.connect = socket.socket.connect_ex = refuse
"""


@pytest.mark.parametrize(
    ("study", "command"),
    [
        (
            "paper",
            [
                "-m",
                "snakemake",
                "-n",
                "--profile",
                "profiles/slurm",
                "--configfile",
                "studies/paper.yaml",
            ],
        ),
        ("peft", ["workflow_scripts/run_study.py", "-n", "--study", "studies/peft.yaml"]),
    ],
)
def test_dry_run_of_large_studies_needs_neither_torch_nor_a_network(study, command, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(CUT_OFF)
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for code in ("import torch", "import socket; socket.create_connection(('127.0.0.1', 9))"):
        cut = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert "a dry run" in cut.stderr
    planned = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert planned.returncode == 0, planned.stdout + planned.stderr
    counts = dict(re.findall(r"^(\w+) +(\d+)$", planned.stdout + planned.stderr, re.M))
    expected = {
        "paper": {"prepare_dataset": 9, "embed_images": 36, "finetune_model": 63, "fit_cached": 18},
        "peft": {"prepare_dataset": 11, "prepare_shifted_test": 5, "embed_shifted_test": 5,
                 "finetune_model": 44, "fit_cached": 22},
    }  # fmt: skip
    assert expected[study].items() <= {rule: int(n) for rule, n in counts.items()}.items()


ACCEPTED = [
    "häuser",
    "写真",
    "фото",
    "हिन्दी",
    "می\u200cشود",
    "ไทย",
    "a.b-c_d",
    "1",
    "x" * 19,
    "e\u0301t\u00e9",
]
REFUSED = [
    "a b", "a\u3000b", "a\u00a0b", "_a", ".a", "-a", "a/b", "a\n", "a;b", "$a", "a'b", "{a}", "",
    "x" * 20, "ab" * 20, "y" + "z" * 60, "a\u2028b", "test\n",
]  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_check_config_accepts_names_in_any_script(name):
    for path in (f"datasets/{name}", f"models/{name}"):
        entry = STUDY["datasets"]["mnist"] if path[0] == "d" else STUDY["models"]["clip_mini"]
        check_config(change_study(path, entry))


@pytest.mark.parametrize("name", REFUSED)
def test_check_config_refuses_names_that_cannot_be_folders_or_wildcards(name):
    config = copy.deepcopy(STUDY)
    config["datasets"][name] = STUDY["datasets"]["mnist"]
    with pytest.raises(ForetuneError, match=r"^datasets: .*(does not do as a name|is too long)"):
        check_config(config)
    shifted = copy.deepcopy(STUDY)
    shifted["datasets"]["mnist"] = {
        **STUDY["datasets"]["mnist"],
        "shifted": {name: {"folder": "."}},
    }
    with pytest.raises(ForetuneError, match=r"shifted: .*(does not do as a name|is too long)"):
        check_config(shifted)
