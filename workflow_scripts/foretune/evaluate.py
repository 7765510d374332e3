"""Accuracy on test splits, and what needs no torch for it: zero-shot models and probes."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from safetensors.numpy import load_file as load_arrays

from foretune.datasets import read_manifest
from foretune.embeddings import read_pair, unit_rows
from foretune.files import ForetuneError, digest_file
from foretune.tables import write_parquet

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in
          ("model", "method", "trained_on", "evaluated_on", "split")),
        ("accuracy", pa.float64()),
        ("n", pa.int64()),
        ("chance", pa.float64()),
    ]
)  # fmt: skip


def outcome(model, method, trained_on, manifest, correct: np.ndarray) -> dict:
    return {
        "model": model,
        "method": method,
        "trained_on": trained_on,
        "evaluated_on": manifest["name"],
        "split": "test",
        "accuracy": float(np.mean(correct)),
        "n": len(correct),
        "chance": 1 / len(manifest["classes"]),
    }


def write_outcomes(rows: list[dict], output: Path) -> None:
    write_parquet(pa.Table.from_pylist(rows, SCHEMA), output, {"kind": "outcomes"})


def evaluate_zero_shot(model: str, dataset: Path, embeddings: Path, output: Path) -> None:
    """The base model on one dataset, from its cached embeddings."""
    manifest = read_manifest(dataset)
    images, texts = read_pair(embeddings, "test", manifest["digest"])
    predicted = (unit_rows(images.vectors) @ unit_rows(texts.vectors).T).argmax(axis=1)
    correct = predicted == images.columns["label"]
    write_outcomes([outcome(model, "zero_shot", None, manifest, correct)], output)


def evaluate_probe(best: Path, dataset: Path, embeddings: Path, output: Path) -> None:
    """A selected linear probe on the test split of its own task."""
    run, manifest = read_best(best), read_manifest(dataset)
    images, _ = read_pair(embeddings, "test", manifest["digest"])
    layer = load_arrays(run["delta"])
    predicted = (images.vectors @ layer["weight"] + layer["bias"]).argmax(axis=1)
    correct = predicted == images.columns["label"]
    rows = [outcome(run["model"], run["method"], run["dataset"], manifest, correct)]
    write_outcomes(rows, output)


def read_best(path: Path) -> dict:
    """A selection, after a check that its weights are those that were selected."""
    run = json.loads(Path(path).read_text())
    if not Path(run["delta"]).exists():
        raise ForetuneError(f"{run['delta']}: lost; delete {path} too and run again")
    if digest_file(run["delta"]) != run["sha256"]:
        raise ForetuneError(f"{run['delta']}: not the weights that {path} selected; delete both")
    return run
