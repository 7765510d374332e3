"""Every documented setting of methods and measures, run once through the scripts of the jobs.

A setting that is added to the schema must be added to SETTINGS here.
"""

import copy
import json
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

import analyze
import embed_images
import evaluate
import finetune
import fit_cached
import measure
from checkout import CLIP_MINI, ROOT
from foretune.core.config import CACHED_METHODS, CONFIG_SCHEMA, check_config
from foretune.core.grid import expand_grid, list_parts
from foretune.core.parquet import read_metadata, write_parquet
from smoke import jobs, run

pytestmark = pytest.mark.long

RATES = {"full": 1e-3, "bitfit": 1e-2, "attention": 1e-3, "lora": 1e-2, "clip_adapter": 0.1,
         "linear_probe": 0.1, "text_probe": 1.0, "lp_plus_plus": 1.0, "flyp": 1e-3, "lp_ft": 1e-3,
         "clip_lora": 1e-2}  # fmt: skip
# The decay multiplies weights by -1e24 per step, which overflows on any processor.
DIVERGING = {"learning_rate": [1e12], "weight_decay": [1e12]}
# Setting -> the methods to run it with, and a value for each run.
ANY = ("full", "linear_probe", "clip_adapter")
TUNED = ("full", "lora")
QKVO = {"projections": "qkvo", "epochs": 2}
SETTINGS = {
    "learning_rate": (ANY, [{"learning_rate": [1e-3, 1e-4]}]),
    "weight_decay": (ANY, [{"weight_decay": [0, 1e-2]}]),
    "optimizer": (ANY, [{"optimizer": "adamw"}, {"optimizer": "sgd"}]),
    "momentum": (ANY, [{"momentum": 0}]),
    "epochs": (ANY, [{"epochs": 2}]),
    "batch_size": (ANY, [{"batch_size": 7}, {"batch_size": 10_000_000}]),
    "schedule": (ANY, [{"schedule": "cosine"}, {"schedule": "constant"}]),
    "warmup_epochs": (ANY, [{"warmup_epochs": 0.5}]),
    "label_smoothing": (ANY, [{"label_smoothing": 0.1}]),
    "clip_norm": (ANY, [{"clip_norm": 1.0}]),
    "parts": (ANY, [{"parts": 2, "learning_rate": [1e-3, 1e-4]}]),
    "search.kind": (("full",), [
        {"search": {"kind": "halving", "eta": 2, "rungs": 2}, "epochs": 2,
         "learning_rate": [1e-3, 1e-4]},
    ]),
    "search.trials": (ANY, [{"search": {"kind": "random", "trials": 1, "seed": 2**32 - 1},
                             "learning_rate": [1e-3, 1e-4]}]),
    "models": (("full",), [{"models": ["clip_mini"]}]),
    "towers": (("full", "bitfit", "attention", "lora"), [{"towers": "image"}, {"towers": "text"}]),
    "precision": (TUNED, [{"precision": "bf16"}, {"precision": "fp32"}]),
    "compile": (("full",), [{"compile": True}]),
    "patience": (("full",), [{"patience": 1, "epochs": 3, "learning_rate": [1e-12]}]),
    "augmentation.crop": (TUNED, [{"augmentation": {"crop": 0.5}}]),
    "augmentation.flip": (TUNED, [{"augmentation": {"flip": True}}]),
    "wise_ft": (
        (*TUNED, "flyp", "lp_ft", "clip_lora", "text_probe", "lp_plus_plus"),
        [{"wise_ft": [0, 0.5]}],
    ),
    "rank": (("lora",), [{"rank": [1, 300]}]),
    "alpha": (("lora",), [{"alpha": 0.5}]),
    "projections": (("lora",), [
        QKVO, {**QKVO, "towers": "text"}, {**QKVO, "towers": "image"},
        {**QKVO, "precision": "bf16", "wise_ft": [0.5]}, {**QKVO, "optimizer": "adamw",
                                                        "augmentation": {"flip": True}},
    ]),
    "dropout": (("lora",), [{"dropout": 0.5}]),
    "probe": (("lp_ft",), [{"probe": {"learning_rate": [1.0, 0.1], "epochs": 2}}]),
    "features": (("linear_probe",), [{"features": "pooled"}, {"features": "projected"}]),
    "reduction": (("clip_adapter",), [{"reduction": [1, 128]}]),
    "ratio": (("clip_adapter",), [{"ratio": 1.0}]),
}  # fmt: skip
TOGETHER = {  # settings that another one's run has
    "search": "search.kind", "search.eta": "search.kind", "search.rungs": "search.kind",
    "search.seed": "search.trials", "augmentation": "augmentation.crop",
    "probe.learning_rate": "probe", "probe.epochs": "probe",
}  # fmt: skip
MEASURES = {
    "also": {"also": ["entropy_total", "entropy_single"]},
    "without": {"without": ["silhouette_euclidean"]},
    "sample": {"sample": 100},
    "bootstrap": {"bootstrap": 2},
    "emms_sources": {"emms_sources": ["clip_mini"]},
}
SLOW = "compile"  # by torch's compiler: minutes on a CPU
RUNS = [
    pytest.param(
        method, keys, id=f"{name}-{method}-{number}", marks=[pytest.mark.slow] * (name == SLOW)
    )
    for name, (methods, values) in SETTINGS.items()
    for method in methods
    for number, keys in enumerate(values)
]


def list_settings(definition: dict, prefix: str = "") -> set[str]:
    """Return the dotted names of the settings below a definition of the schema."""
    names = set()
    for name, setting in definition["properties"].items():
        names.add(prefix + name)
        if "properties" in setting:
            names |= list_settings(setting, f"{prefix}{name}.")
    return names


def test_every_documented_setting_is_run():
    schema = yaml.safe_load(CONFIG_SCHEMA.read_text())
    methods = schema["properties"]["methods"]["properties"]
    assert set(methods) == set(RATES) == {param.values[0] for param in RUNS}
    documented = list_settings(schema["$defs"]["tuned"])
    for method in ("lora", "clip_adapter", "lp_ft", "linear_probe"):
        documented |= list_settings(methods[method])
    # These two name runs; see tests/core/test_variants.py.
    assert documented - {"shots", "seeds"} == {*SETTINGS, *TOGETHER}
    assert set(TOGETHER.values()) <= set(SETTINGS)
    assert list_settings(schema["properties"]["measures"]) == set(MEASURES)


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)
    torch.set_num_threads(1)


def call(script, monkeypatch, *words, **options):
    """Run a script's work in this process, with options given by keyword."""
    arguments = [str(word) for word in words]
    for name, value in options.items():
        arguments.append(f"--{name.replace('_', '-')}")
        arguments += map(str, value) if isinstance(value, list) else [str(value)]
    monkeypatch.setattr(sys, "argv", [script.__name__, *arguments])
    script.work()


def make_study(method: str, keys: dict) -> dict:
    """Return a checked study of one model and method, with every default filled in."""
    recipe = {"learning_rate": [RATES[method]], "epochs": 1, "batch_size": 32, **keys}
    return check_config({
        "models": {"clip_mini": copy.deepcopy(CLIP_MINI)},
        "datasets": {"mnist": {"parquet": "resources/mini/mnist.parquet"}},
        "methods": {method: recipe},
    })  # fmt: skip


def train(method, recipe, task, output, monkeypatch, part=0):
    """Run the job of one part of a method's grid as its rule does."""
    options = {
        "model": "clip_mini", "method": method, "dataset-name": "mnist", "seed": 2**32 - 1,
        "recipe": json.dumps({k: v for k, v in recipe.items() if not isinstance(v, list)}),
        "trials": json.dumps(expand_grid(recipe, part)), "dataset": task / "dataset",
        "output": output,
    }  # fmt: skip
    if method in CACHED_METHODS:
        embeddings = get_features(recipe, task, output, monkeypatch)
        call(fit_cached, monkeypatch, **options, embeddings=embeddings)
    else:
        call(finetune, monkeypatch, **options, model_spec=json.dumps(CLIP_MINI),
             text=task / "embeddings/text.parquet", prepared=task / "prepared")  # fmt: skip


def get_features(recipe, task, output, monkeypatch):
    """Return the folder of the image features that a method on cached embeddings reads."""
    folder = output / "pooled" if recipe.get("features") == "pooled" else task / "embeddings"
    if not folder.exists():
        call(embed_images, monkeypatch, "--pooled", model_spec=json.dumps(CLIP_MINI),
             dataset=task / "dataset", prepared=task / "prepared", output=folder)  # fmt: skip
    return folder


def evaluate_selection(method, recipe, task, output, monkeypatch):
    """Test a trained model as the rule of its method does, and return the table's rows."""
    tables = {name: output / f"{name}.parquet" for name in ("classes", "confusions")}
    tables |= {"output": output / "rows.parquet", "predictions": output / "predictions"}
    tables["manifests"] = task / "dataset/dataset.json"
    tables["selections"] = output / "best.json"
    texts, images = task / "embeddings/text.parquet", task / "embeddings/test.parquet"
    if method == "linear_probe":
        images = get_features(recipe, task, output, monkeypatch) / "test.parquet"
        call(evaluate, monkeypatch, "probe", **tables, images=images)
    elif method in CACHED_METHODS:
        wise_ft = {"wise_ft": recipe["wise_ft"]} if "wise_ft" in recipe else {}
        call(evaluate, monkeypatch, "adapter", **tables, images=images, texts=texts, **wise_ft)
    else:
        embeddings = output / "embeddings"
        embeddings.mkdir()
        (embeddings / "mnist").symlink_to(task / "embeddings")
        call(evaluate, monkeypatch, "model", **tables, texts=texts, embeddings=embeddings,
             model_spec=json.dumps(CLIP_MINI), wise_ft=recipe["wise_ft"], code="code",
             prepared=task / "prepared", drift=output / "drift.parquet")  # fmt: skip
    return pq.read_table(output / "rows.parquet").to_pylist()


@pytest.mark.parametrize(("method", "keys"), RUNS)
def test_setting_runs_through_the_scripts(method, keys, small_task, tmp_path, monkeypatch):
    recipe = make_study(method, keys)["methods"][method]
    for part in list_parts(recipe):
        train(method, recipe, small_task, tmp_path, monkeypatch, part)
    best = json.loads((tmp_path / "best.json").read_text())
    assert 0 <= best["val_accuracy"] <= 1
    rows = evaluate_selection(method, recipe, small_task, tmp_path, monkeypatch)
    assert [row["wise_ft"] for row in rows] == [*recipe.get("wise_ft", []), 1]
    assert all(0 <= row["accuracy"] <= 1 and row["n"] == 50 for row in rows)


@pytest.mark.parametrize("name", MEASURES)
def test_setting_of_measures_runs_through_the_script(name, small_task, tmp_path, monkeypatch):
    study = make_study("full", {})
    study = check_config({**study, "measures": MEASURES[name]})
    options = {k: v for k, v in study["measures"].items() if k != "emms_sources"}
    if name not in ("bootstrap", "also"):
        options["bootstrap"] = 0
    sources = [small_task / "embeddings/text.parquet"] * bool(study["measures"]["emms_sources"])
    call(measure, monkeypatch, model="clip_mini", options=json.dumps(options), seed=2**32 - 1,
         emms_sources=sources, dataset=small_task / "dataset",
         embeddings=small_task / "embeddings", output=tmp_path / "m.json")  # fmt: skip
    measured = json.loads((tmp_path / "m.json").read_text())["measures"]
    assert measured["iimm"] is not None and not set(options["without"]) & set(measured)
    assert set(options["also"]) <= set(measured)


@pytest.mark.parametrize("method", ["lora", "clip_adapter", "linear_probe"])
def test_pair_whose_trials_all_diverge_is_missing_with_a_note(
    method, small_task, tmp_path, monkeypatch
):
    recipe = make_study(method, {**DIVERGING, "epochs": 2})["methods"][method]
    train(method, recipe, small_task, tmp_path, monkeypatch)
    assert json.loads((tmp_path / "best.json").read_text())["diverged"]
    assert evaluate_selection(method, recipe, small_task, tmp_path, monkeypatch) == []
    zero_shot = {name: tmp_path / f"zero_{name}" for name in ("output", "classes", "confusions")}
    call(evaluate, monkeypatch, "zero-shot", **zero_shot, model="clip_mini",
         predictions=tmp_path / "predictions", manifests=small_task / "dataset/dataset.json",
         texts=small_task / "embeddings/text.parquet",
         images=small_task / "embeddings/test.parquet")  # fmt: skip
    call(measure, monkeypatch, model="clip_mini", options='{"bootstrap": 0}', seed=0,
         dataset=small_task / "dataset", embeddings=small_task / "embeddings",
         output=tmp_path / "m.json")  # fmt: skip
    drifts = {"drifts": tmp_path / "drift.parquet"} if method == "lora" else {}
    call(analyze, monkeypatch, evaluations=[zero_shot["output"], tmp_path / "rows.parquet"],
         classes=[zero_shot["classes"], tmp_path / "classes.parquet"],
         confusions=[zero_shot["confusions"], tmp_path / "confusions.parquet"],
         selections=tmp_path / "best.json", measures=tmp_path / "m.json", models="{}",
         datasets="mnist", paper=ROOT / "studies/paper.yaml", seed=0, output=tmp_path / "analysis",
         **drifts)  # fmt: skip
    [row] = pd.read_csv(tmp_path / "analysis/missing.csv").to_dict("records")
    note = row.pop("note")
    assert row == {"model": "clip_mini", "method": method, "dataset": "mnist"}
    assert note.startswith("every trial diverged: lower methods.")


def make_full_study(checkout) -> dict:
    """Return a study that has every setting of methods and measures, on a small task.

    It also has every kind of key of datasets and forecasts that needs no network.
    """
    table = pq.read_table(checkout / "resources/mini/mnist.parquet")
    facts = read_metadata(checkout / "resources/mini/mnist.parquet")
    for name, rows in (("train", [*range(100), *range(2000, 2050)]), ("few", [*range(100, 130)])):
        write_parquet(table.take(rows), checkout / f"{name}.parquet", facts)
    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    arrays = {"images": vectors, "texts": vectors[:4], "labels": np.arange(40) % 4}
    for name, array in arrays.items():
        np.save(checkout / f"{name}.npy", array)
    tuned = {"epochs": 2, "batch_size": 32, "precision": "bf16", "wise_ft": [0.5]}
    return {
        "title": "every <setting>", "seed": 2**32 - 1, "data": "data", "temperature_scaling": True,
        "models": {
            "clip_mini": {"folder": "resources/mini/clip", "parameters": 1.0e6},
            "other": {"folder": "resources/mini/siglip"},
        },
        "datasets": {
            "mnist": {
                "parquet": "train.parquet", "shards": 2, "caption": "the digit {}",
                "classes": [f"digit {i}" for i in range(10)], "licence": "CC0", "source": "a test",
                "shifted": {"few": {"parquet": "train.parquet"}},
            },
            "halves": {
                "parquet": "train.parquet", "classes": {"base": "half", "new": "half"},
                "caption": ["a {}", "the handwritten {}"],
            },
        },
        "methods": {
            "full": {
                **tuned, "learning_rate": [1e-3, 1e-4], "optimizer": "adamw", "schedule": "cosine",
                "warmup_epochs": 1, "label_smoothing": 0.1, "clip_norm": 1.0, "patience": 1,
                "augmentation": {"crop": 0.5, "flip": True}, "models": ["clip_mini", "other"],
                "search": {"kind": "halving", "eta": 2, "rungs": 2},
            },
            "bitfit": {**tuned, "learning_rate": [1e-2], "compile": True, "towers": "image"},
            "attention": {**tuned, **DIVERGING},
            "lora": {
                **tuned, "learning_rate": [1e-2], "rank": [2, 4], "alpha": 4, "parts": 10**6,
                "projections": "qkvo", "towers": "text",
            },
            "clip_adapter": {
                "epochs": 2, "learning_rate": [0.1], "reduction": [2, 4], "ratio": 0.5,
                "momentum": 0.5, "weight_decay": [0, 1e-3],
                "search": {"kind": "random", "trials": 3, "seed": 1},
            },
            "linear_probe": {
                "epochs": 2, "learning_rate": [1.0], "models": ["clip_mini"], "features": "pooled",
            },
            "text_probe": {
                "epochs": 2, "learning_rate": [1.0], "wise_ft": [0.5], "shots": [2, "all"],
                "seeds": [0, 1],
            },
            "lp_plus_plus": {"epochs": 2},
            "lp_ft": {**tuned, "learning_rate": [1e-3], "probe": {"learning_rate": [1.0]}},
            "flyp": {**tuned, "learning_rate": [1e-3], "shots": [4], "seeds": [0, 1]},
            "clip_lora": {**tuned, "learning_rate": [1e-3]},
        },
        "measures": {
            "also": ["entropy_total"], "without": ["silhouette_euclidean"], "sample": 100,
            "bootstrap": 2, "emms_sources": ["clip_mini", "other"],
        },
        "forecast": {"datasets": {"new": {"parquet": "train.parquet", "shards": 2}}, "weight": 0.3},
        "embeddings": {"mine": {name: f"{name}.npy" for name in arrays}},
    }  # fmt: skip


def test_forecast_from_another_study_is_planned(checkout):
    study = {
        "models": {"clip_mini": {"folder": "resources/mini/clip"}},
        "datasets": {"digits": {"parquet": "resources/mini/digits.parquet"}},
        "methods": {"full": {"learning_rate": [1e-3]}},
        "forecast": {
            "study": "resources/mini/study",
            "datasets": {"new": {"parquet": "resources/mini/mnist.parquet"}},
        },
    }
    (checkout / "forecast.yaml").write_text(yaml.safe_dump(study))
    planned = jobs(run(checkout, "-n", "--study", "forecast.yaml"))
    assert planned["forecast_datasets"] == planned["write_forecast_page"] == 1


def test_nothing_is_forecast_for_a_model_that_the_study_does_not_tune(checkout):
    study = {
        "models": {name: {"folder": f"resources/mini/{name}"} for name in ("clip", "siglip")},
        "datasets": {"digits": {"parquet": "resources/mini/digits.parquet"}},
        "methods": {"linear_probe": {"learning_rate": [1.0], "models": ["clip"]}},
        "forecast": {"datasets": {"new": {"parquet": "resources/mini/mnist.parquet"}}},
    }
    (checkout / "forecast.yaml").write_text(yaml.safe_dump(study))
    planned = jobs(run(checkout, "-n", "--study", "forecast.yaml"))
    assert (planned["measure_task"], planned["rehearse_task"]) == (3, 3)
    assert planned["forecast_datasets"] == 1


@pytest.mark.slow
def test_study_with_every_setting_runs_through_snakemake(checkout):
    """One method diverges for every trial; the study is complete without it."""
    study = make_full_study(checkout)
    (checkout / "every.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    run(checkout, "--study", "every.yaml")
    analysis = checkout / "results/analysis"
    missing = pq.read_table(analysis / "missing.parquet").to_pylist()
    assert {(row["model"], row["method"]) for row in missing} == {
        ("clip_mini", "attention"), ("other", "attention")
    }  # fmt: skip
    tasks = pq.read_table(analysis / "tasks.parquet").to_pylist()
    methods = set(study["methods"]) - {"attention"} | {"flyp_4shot", "text_probe_2shot"}
    assert {row["method"] for row in tasks} == methods - {"flyp"}
    assert all(row["temperature"] > 0 for row in tasks if row["method"] == "full")
    halves = pq.read_table(analysis / "base_to_new.parquet").to_pylist()
    assert {row["dataset"] for row in halves} == {"halves"}
    report = (checkout / "results/report.html").read_text()
    assert "<strong>Without a result.</strong>" in report and "every &lt;setting&gt;" in report
    assert (checkout / "results/forecast/forecast.html").exists()
    weights = load_file(next(checkout.glob("results/trials/clip_mini/lora/mnist/*/*.safetensors")))
    assert weights and not any(name.startswith("visual.") for name in weights)
    assert jobs(run(checkout, "-n", "--study", "every.yaml")) == {}
