"""Tests, predictions and scores that every kind of evaluation shares. Free of torch.

A test is the folder of a prepared dataset or of one of its shifted tests. Predictions are kept in
one small file per checkpoint and test, so that no later statistic needs another forward pass.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from foretune.core.entries import Selection
from foretune.core.errors import ForetuneError
from foretune.core.files import digest_file, digest_json
from foretune.core.parquet import read_table, write_parquet
from foretune.data.prepared import Manifest, read_manifest
from foretune.encoders.cache import Embeddings, read_embeddings
from foretune.evaluation.calibration import calibration_error, compute_probabilities
from foretune.evaluation.confusions import count_confusions
from foretune.training.trials import read_selection_file

OUTCOME_KEY = (
    ("model", pa.string()),
    ("method", pa.string()),
    # Share of the fine-tuned weights: 1 for all of them, null for the zero-shot model.
    ("wise_ft", pa.float64()),
    ("trained_on", pa.string()),
    ("evaluated_on", pa.string()),
    ("split", pa.string()),  # "test", or the name of a shifted test of that dataset
)


OUTCOME_SCHEMA = pa.schema(
    [
        *OUTCOME_KEY,
        ("accuracy", pa.float64()),
        ("mean_class_accuracy", pa.float64()),  # mean over the classes that occur in the test
        ("accuracy_top5", pa.float64()),  # null with fewer than five classes
        ("n", pa.int64()),
        ("chance", pa.float64()),
        ("ece", pa.float64()),  # expected calibration error; see `calibration_error`
        ("nll", pa.float64()),  # mean negative log-likelihood of the true classes
        # With the logits divided by a temperature that was fitted on validation images.
        ("temperature", pa.float64()),
        ("ece_scaled", pa.float64()),
        ("nll_scaled", pa.float64()),
        ("test_digest", pa.string()),
        ("predictions", pa.string()),  # name of the file
    ]
)


CLASS_SCHEMA = pa.schema(
    [*OUTCOME_KEY, ("class", pa.string()), ("n", pa.int64()), ("accuracy", pa.float64())]
)


# Rows of zero-shot models on every test, and of trained models on their own task's tests.
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
            "iimm_before", "iimm_after", "iimm_change", "mean_displacement", "text_displacement",
            "bound", "wasserstein", "wasserstein_by_class", "wasserstein_bound")),
        ("wasserstein_n", pa.int64()),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class EvaluationTest:
    """A test's folder, and the files with one model's embeddings of its images and captions.

    A file that the evaluation does not read may be None.
    """

    folder: Path
    images: Path | None = None
    texts: Path | None = None
    validation: Path | None = None  # of its dataset's images, to fit temperatures on

    def read_manifest(self) -> Manifest:
        return read_manifest(self.folder)

    def read_images(self) -> Embeddings:
        """Return the embeddings of the test's images, in the order of its rows."""
        if self.images is None:
            raise ValueError(f"{self.folder}: the evaluation needs embeddings of the images")
        return read_embeddings(self.images, dataset=self.read_manifest()["digest"])

    def read_validation(self) -> Embeddings:
        """Return the embeddings of the validation images of the test's dataset."""
        if self.validation is None:
            raise ValueError(f"{self.folder}: the evaluation needs embeddings of validation images")
        manifest = self.read_manifest()
        return read_embeddings(self.validation, dataset=manifest.get("parent", manifest["digest"]))

    def read_captions(self, **expected: str) -> Embeddings:
        """Return the embeddings of the class captions; a shifted test has those of its dataset.

        `expected` holds metadata that the file must have, as in `read_embeddings`.
        """
        if self.texts is None:
            raise ValueError(f"{self.folder}: the evaluation needs embeddings of the captions")
        manifest = self.read_manifest()
        digest = manifest.get("parent", manifest["digest"])
        return read_embeddings(self.texts, dataset=digest, **expected)


@dataclass(frozen=True)
class EvaluationOutputs:
    """The folder that keeps predictions by digest, and the three tables that are written."""

    predictions: Path
    outcomes: Path  # of OUTCOME_SCHEMA
    classes: Path  # of CLASS_SCHEMA
    confusions: Path  # of CONFUSION_SCHEMA


class Scores(NamedTuple):
    """The rows of one predictor on one test, for each of the three tables."""

    outcome: dict[str, Any]
    classes: list[dict[str, Any]]
    confusions: list[dict[str, Any]]


def get_predictions_path(folder: Path, *made_from, scaled: bool = False) -> Path:
    """Return the file of predictions, named by the digest of the JSON values they depend on.

    scaled: whether a temperature was fitted.
    """
    return folder / f"{digest_json((*made_from, 'scaled') if scaled else made_from)}.parquet"


def write_predictions(
    path: Path, ids, labels, similarities, scale: float, title: str,
    temperature: float | None = None,
) -> None:  # fmt: skip
    """Write the predictions for a test's N images: a row (id, label, predicted) of each.

    `rank` is the number of classes that are more similar than the true one, `confidence` the
    probability of the predicted class, and `log_likelihood` the logarithm of the true one's. With a
    temperature, `confidence_scaled` and `log_likelihood_scaled` are those of the scaled logits.

    Args:
        similarities: (N, C); the class of the largest is predicted.
        scale: logits are the similarities times this factor.
        title: names the test for people.
        temperature: that the logits are divided by; see `calibration.fit_temperature`.
    """
    similarities, labels = np.asarray(similarities), np.asarray(labels)
    predicted = similarities.argmax(axis=1)
    rows = np.arange(len(labels))
    columns = {
        "id": ids,
        "label": pa.array(labels, pa.int32()),
        "predicted": pa.array(predicted, pa.int32()),
        "rank": pa.array((similarities > similarities[rows, labels][:, None]).sum(1), pa.int32()),
    }
    divisors = {"": 1.0} | ({} if temperature is None else {"_scaled": temperature})
    for suffix, divisor in divisors.items():
        confidence, log_likelihood = compute_probabilities(similarities, labels, scale / divisor)
        columns[f"confidence{suffix}"] = pa.array(confidence, pa.float32())
        columns[f"log_likelihood{suffix}"] = pa.array(log_likelihood, pa.float32())
    if temperature is not None:
        columns["temperature"] = pa.array(np.full(len(labels), temperature))
    write_parquet(pa.table(columns), path, {"kind": "predictions", "test": title})


def score_predictions(
    model: str, method: str, trained_on: str | None, wise_ft: float | None, manifest: Manifest,
    predictions: Path,
) -> Scores:  # fmt: skip
    """Score the predictions that were kept for one test.

    Confusions are counted for the zero-shot model (`trained_on` and `wise_ft` are None), and for
    fully fine-tuned weights (`wise_ft` is 1) on the tests of the dataset they were trained on.
    """
    table = read_table(predictions)
    labels, predicted = table["label"].to_numpy(), table["predicted"].to_numpy()
    correct, many = labels == predicted, len(manifest["classes"]) >= 5
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
    outcome = {
        **key,
        "accuracy": float(correct.mean()),
        "mean_class_accuracy": float(np.mean([row["accuracy"] for row in classes])),
        "accuracy_top5": float((table["rank"].to_numpy() < 5).mean()) if many else None,
        "n": len(correct),
        "chance": 1 / len(manifest["classes"]),
        "test_digest": manifest["test_digest"],
        "predictions": predictions.name,
    }
    scaled = "temperature" in table.column_names
    outcome["temperature"] = table["temperature"][0].as_py() if scaled else None
    for suffix in ("", "_scaled") if scaled else ("",):
        confidence = table[f"confidence{suffix}"].to_numpy()
        log_likelihood = table[f"log_likelihood{suffix}"].to_numpy()
        outcome[f"ece{suffix}"] = calibration_error(confidence, correct)
        outcome[f"nll{suffix}"] = -float(log_likelihood.mean(dtype=np.float64))
    confusions = []
    if trained_on in (None, manifest["name"]) and wise_ft in (None, 1):
        test_key = {name: key[name] for name in ("model", "method", "evaluated_on", "split")}
        pairs = count_confusions(labels, predicted, manifest["classes"])
        confusions = [test_key | dict(pair) for pair in pairs]
    return Scores(outcome, classes, confusions)


def write_scores(scores: list[Scores], outputs: EvaluationOutputs) -> None:
    """Write the rows of all scores to the three tables."""
    for path, schema, kind, rows in (
        (outputs.outcomes, OUTCOME_SCHEMA, "outcomes", [each.outcome for each in scores]),
        (outputs.classes, CLASS_SCHEMA, "class_outcomes",
         [row for each in scores for row in each.classes]),
        (outputs.confusions, CONFUSION_SCHEMA, "confusions",
         [row for each in scores for row in each.confusions]),
    ):  # fmt: skip
        write_parquet(pa.Table.from_pylist(rows, schema), path, {"kind": kind})


def read_selections(paths: list[Path]) -> list[Selection]:
    """Return the selections (`best.json`), without those whose trials all diverged."""
    return [run for run in map(read_selection, paths) if not run.get("diverged")]


def read_selection(path: Path) -> Selection:
    """Return a selection (`best.json`) after checking that its weights are the selected ones.

    Raises ForetuneError if a file is damaged, or that of the weights is missing or another one.
    """
    selection = read_selection_file(path)
    weights = selection["trained_weights"]
    if not Path(weights).exists():
        raise ForetuneError(f"{weights}: the file is missing; delete {path} too and run again")
    if digest_file(weights) != selection["sha256"]:
        raise ForetuneError(
            f"{weights}: these are not the weights that {path} selected; delete both and run again"
        )
    return selection
