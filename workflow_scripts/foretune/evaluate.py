"""Accuracy on tests, and what needs no torch for it: zero-shot models and probes.

A test is the folder of a prepared dataset or of a shifted test.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from safetensors.numpy import load_file as load_arrays

from foretune.datasets import read_manifest
from foretune.embeddings import Embeddings, read_embeddings, unit_rows
from foretune.files import ForetuneError, digest_file
from foretune.tables import write_parquet

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in
          ("model", "method", "trained_on", "evaluated_on", "split")),
        ("accuracy", pa.float64()),
        ("n", pa.int64()),
        ("chance", pa.float64()),
        ("test_digest", pa.string()),
    ]
)  # fmt: skip


def outcome(model, method, trained_on, manifest, correct: np.ndarray) -> dict:
    """A row: `split` is "test", or a shifted test's name beside its dataset's in `evaluated_on`."""
    return {
        "model": model,
        "method": method,
        "trained_on": trained_on,
        "evaluated_on": manifest["name"],
        "split": manifest["split"],
        "accuracy": float(np.mean(correct)),
        "n": len(correct),
        "chance": 1 / len(manifest["classes"]),
        "test_digest": manifest["test_digest"],
    }


def write_outcomes(rows: list[dict], output: Path) -> None:
    write_parquet(pa.Table.from_pylist(rows, SCHEMA), output, {"kind": "outcomes"})


def captions_of(text_cache: Path, manifest: dict, **expected) -> Embeddings:
    """The captions that a test is predicted from; a shifted test has those of its dataset."""
    digest = manifest.get("parent", manifest["digest"])
    return read_embeddings(text_cache, dataset=digest, **expected)


def evaluate_zero_shot(
    model: str, tests: list[Path], image_caches: list[Path], text_caches: list[Path], output: Path
) -> None:
    """The base model on every test, from the cached embeddings of its images and captions."""
    rows = []
    for test, image_cache, text_cache in zip(tests, image_caches, text_caches, strict=True):
        manifest = read_manifest(test)
        images = read_embeddings(image_cache, dataset=manifest["digest"])
        texts = captions_of(text_cache, manifest, weights=images.metadata["weights"])
        predicted = (unit_rows(images.vectors) @ unit_rows(texts.vectors).T).argmax(axis=1)
        correct = predicted == images.columns["label"]
        rows.append(outcome(model, "zero_shot", None, manifest, correct))
    write_outcomes(rows, output)


def evaluate_probe(
    selections: list[Path], tests: list[Path], image_caches: list[Path], output: Path
) -> None:
    """Selected linear probes, each on the tests of its own task, the shifted ones too."""
    runs = {run["dataset"]: run for run in map(read_best, selections)}
    rows = []
    for test, image_cache in zip(tests, image_caches, strict=True):
        manifest = read_manifest(test)
        run = runs[manifest["name"]]
        images = read_embeddings(image_cache, dataset=manifest["digest"])
        layer = load_arrays(run["delta"])
        predicted = (images.vectors @ layer["weight"] + layer["bias"]).argmax(axis=1)
        correct = predicted == images.columns["label"]
        rows.append(outcome(run["model"], run["method"], run["dataset"], manifest, correct))
    write_outcomes(rows, output)


def read_best(path: Path) -> dict:
    """A selection, after a check that its weights are those that were selected."""
    run = json.loads(Path(path).read_text())
    if not Path(run["delta"]).exists():
        raise ForetuneError(f"{run['delta']}: lost; delete {path} too and run again")
    if digest_file(run["delta"]) != run["sha256"]:
        raise ForetuneError(f"{run['delta']}: not the weights that {path} selected; delete both")
    return run
