"""Accuracy on tests, and what needs no torch for it: zero-shot models, probes and adapters.

A test is the folder of a prepared dataset or of a shifted test. Predictions are kept, one small
file for each checkpoint and test, so that no later statistic needs a forward pass.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from foretune.core.errors import ForetuneError
from foretune.core.files import digest_file, digest_json
from foretune.core.parquet import write_parquet
from foretune.encoders.cache import Embeddings, read_embeddings
from foretune.evaluation.confusions import count_confusions

OUTCOME_KEY = (
    ("model", pa.string()),
    ("method", pa.string()),
    ("wise_ft", pa.float64()),  # coefficient of the tuned weights: 1 is all of them, null none
    ("trained_on", pa.string()),
    ("evaluated_on", pa.string()),
    ("split", pa.string()),  # "test", or a shifted test's name beside its dataset's
)


OUTCOME_SCHEMA = pa.schema(
    [
        *OUTCOME_KEY,
        ("accuracy", pa.float64()),
        ("mean_class_accuracy", pa.float64()),  # over the classes that the test has
        ("n", pa.int64()),
        ("chance", pa.float64()),
        ("test_digest", pa.string()),
        ("predictions", pa.string()),  # the file's name
    ]
)


CLASS_SCHEMA = pa.schema(
    [*OUTCOME_KEY, ("class", pa.string()), ("n", pa.int64()), ("accuracy", pa.float64())]
)


# Of the zero-shot model on every test, and of a tuned one on the tests of its own task.
CONFUSION_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("model", "method", "evaluated_on", "split")),
        ("class", pa.string()),
        ("predicted", pa.string()),
        ("n", pa.int64()),
        ("class_n", pa.int64()),
        ("share", pa.float64()),
    ]
)


DRIFT_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("model", "method", "dataset")),
        *((name, pa.float64()) for name in (
            "iimm_before", "iimm_after", "iimm_change", "mean_displacement", "text_displacement", "bound",
            "wasserstein", "wasserstein_by_class", "wasserstein_bound")),
        ("wasserstein_n", pa.int64()),
    ]
)  # fmt: skip


def get_predictions_path(folder: Path, *made_from) -> Path:
    """The file of predictions that were made from all this (anything that JSON has)."""
    return folder / f"{digest_json(made_from)}.parquet"


def write_predictions(path: Path, ids, labels, predicted, title: str) -> None:
    """Write (id, label, predicted) of a test's N images; title: the test's, for people."""
    table = pa.table({
        "id": ids,
        "label": pa.array(np.asarray(labels), pa.int32()),
        "predicted": pa.array(np.asarray(predicted), pa.int32()),
    })  # fmt: skip
    write_parquet(table, path, {"kind": "predictions", "test": title})


def score_predictions(
    model: str, method: str, trained_on: str | None, wise_ft: float | None, manifest: dict,
    predictions: Path,
) -> tuple[dict, list[dict], list[dict]]:  # fmt: skip
    """Rows of kept predictions: one of SCHEMA, one of CLASS_SCHEMA for each class that the test
    has, and those of CONFUSION_SCHEMA.
    """
    table = pq.read_table(predictions)
    labels, predicted = table["label"].to_numpy(), table["predicted"].to_numpy()
    correct = labels == predicted
    key = {
        "model": model, "method": method, "wise_ft": wise_ft, "trained_on": trained_on,
        "evaluated_on": manifest["name"], "split": manifest["split"],
    }  # fmt: skip
    classes = [
        {
            **key,
            "class": manifest["classes"][label],
            "n": int((labels == label).sum()),
            "accuracy": float(correct[labels == label].mean()),
        }
        for label in np.unique(labels)
    ]
    row = {
        **key,
        "accuracy": float(correct.mean()),
        "mean_class_accuracy": float(np.mean([each["accuracy"] for each in classes])),
        "n": len(correct),
        "chance": 1 / len(manifest["classes"]),
        "test_digest": manifest["test_digest"],
        "predictions": predictions.name,
    }
    confused = []
    if trained_on in (None, manifest["name"]) and wise_ft in (None, 1):
        of = {name: key[name] for name in ("model", "method", "evaluated_on", "split")}
        pairs = count_confusions(labels, predicted, manifest["classes"])
        confused = [of | pair for pair in pairs]
    return row, classes, confused


def write_scores(scores: list[tuple], output: Path, classes: Path, confusions: Path) -> None:
    """Write what `score_predictions` gave of each test, a file for each of its three kinds of rows."""
    for path, schema, kind, rows in (
        (output, OUTCOME_SCHEMA, "outcomes", [row for row, _, _ in scores]),
        (classes, CLASS_SCHEMA, "class_outcomes", [row for _, some, _ in scores for row in some]),
        (confusions, CONFUSION_SCHEMA, "confusions", [row for *_, some in scores for row in some]),
    ):
        write_parquet(pa.Table.from_pylist(rows, schema), path, {"kind": kind})


def read_captions(text_cache: Path, manifest: dict, **expected) -> Embeddings:
    """The captions that a test is predicted from; a shifted test has those of its dataset."""
    digest = manifest.get("parent", manifest["digest"])
    return read_embeddings(text_cache, dataset=digest, **expected)


def read_selection(path: Path) -> dict:
    """A selection, after a check that its weights are those that were selected."""
    run = json.loads(Path(path).read_text())
    if not Path(run["trained_weights"]).exists():
        raise ForetuneError(f"{run['trained_weights']}: lost; delete {path} too and run again")
    if digest_file(run["trained_weights"]) != run["sha256"]:
        raise ForetuneError(
            f"{run['trained_weights']}: not the weights that {path} selected; delete both"
        )
    return run
