"""The rehearsal of a task: what probes on cached embeddings reach, by cross-validation.

It uses the training images' embeddings and labels only: no test image, no pixel, no GPU. Its
results are predictors of the outcomes of fine-tuning, next to the measures.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from foretune.analysis.measure_tables import MeasureDetail
from foretune.data.prepared import Manifest
from foretune.encoders.cache import normalize_rows, read_embeddings, read_task_embeddings
from foretune.forecast.probes import (
    ProbeScores,
    cross_validate_centroids,
    cross_validate_neighbours,
    cross_validate_ridge,
    draw_folds,
    standardize_columns,
)

FOLDS = 5
CURVE_SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)  # of the training images of each fold
MOST_TESTED = 10_000  # images, by the points of the learning curve
FEW_IMAGES = 100  # fewer make every accuracy uncertain by ten points
# The predictors, and what each is. All but the last are accuracies on the training images.
PREDICTORS = {
    "train_zero_shot_accuracy": "zero-shot accuracy on the training images",
    "knn_accuracy": "accuracy of the nearest neighbours, cross-validated",
    "centroid_accuracy": "accuracy of the nearest class mean, cross-validated",
    "probe_accuracy": "accuracy of a linear probe on the embedding, cross-validated",
    "hidden_probe_accuracy": "accuracy of a linear probe on the embedding and an earlier block, "
    "cross-validated",
    "hidden_probe_gain": "share of the zero-shot errors that this probe removes",
}


class RehearsalPoint(TypedDict):
    """The accuracy of the hidden probe if it is fitted on `n` images."""

    n: int
    accuracy: float


class RehearsalFile(TypedDict):
    """The JSON file of a rehearsal. Its first keys are those of a file of measures."""

    model: NotRequired[str]
    dataset: NotRequired[str]
    weights: NotRequired[str]
    n: int  # training images
    measures: dict[str, float | None]  # the predictors
    details: dict[str, MeasureDetail]
    notes: list[str]
    learning_curve: list[RehearsalPoint]
    classes: list[dict[str, Any]]  # name, n, zero_shot and probe accuracy
    grouped: bool  # whether folds keep groups together


@dataclass(frozen=True)
class RehearsalImages:
    """The training images of a task as one model sees them.

    vectors: raw embeddings (N, d); hidden: hidden features (N, h); captions: raw embeddings of
    the captions (C, d); labels: (N,), all of the C classes occur; groups: (N,), None for an image
    without a group; names: of the C classes.
    """

    ids: np.ndarray
    vectors: np.ndarray
    hidden: np.ndarray
    captions: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    names: list[str]


def read_rehearsal_images(folder: Path, manifest: Manifest) -> tuple[RehearsalImages, str]:
    """Read what a rehearsal needs from a folder with one model's embeddings of a dataset.

    Returns the images and the digest of the model's weights. Raises ForetuneError if a file was
    made from something else.
    """
    train, captions = read_task_embeddings(folder, "train", manifest["digest"])
    weights = train.metadata["weights"]
    hidden = read_embeddings(
        Path(folder) / "train_hidden.parquet", dataset=manifest["digest"], weights=weights
    )
    images = RehearsalImages(
        train.columns["id"], train.vectors, hidden.vectors, captions.vectors,
        train.columns["label"].astype(int), train.columns["group"], manifest["classes"],
    )  # fmt: skip
    return images, weights


def rehearse(images: RehearsalImages, seed: int) -> tuple[RehearsalFile, pd.DataFrame]:
    """Return the rehearsal of a task, and a table with a row per training image.

    The table's columns: id, label, zero_shot (the predicted class), probe (the class that the
    hidden probe predicts without the image's fold), and margin, the probe's score of the label
    minus its highest other score. A very negative margin marks a label that may be wrong.
    """
    labels, n = images.labels, len(images.labels)
    folds = draw_folds(labels, images.groups, FOLDS, seed)
    units = normalize_rows(images.vectors).astype(np.float32)
    zero_shot = (units @ normalize_rows(images.captions).T.astype(np.float32)).argmax(axis=1)
    embedding = standardize_columns(units)
    both = standardize_columns(units, images.hidden)
    probe = cross_validate_ridge(both, labels, folds)
    right = {
        "train_zero_shot_accuracy": zero_shot == labels,
        "knn_accuracy": cross_validate_neighbours(units, labels, folds, seed),
        "centroid_accuracy": cross_validate_centroids(units, labels, folds) == labels,
        "probe_accuracy": cross_validate_ridge(embedding, labels, folds).predicted == labels,
        "hidden_probe_accuracy": probe.predicted == labels,
    }
    measures: dict[str, float | None] = {name: float(r.mean()) for name, r in right.items()}
    details = {name: describe_accuracy(r) for name, r in right.items()}
    gain, details["hidden_probe_gain"] = measure_gain(
        right["hidden_probe_accuracy"], right["train_zero_shot_accuracy"]
    )
    measures["hidden_probe_gain"] = gain
    curve = rehearse_on_fewer(both, labels, folds, seed)
    curve.append({"n": round(n * (1 - 1 / FOLDS)), "accuracy": probe_accuracy(probe, labels)})
    by_class = [
        {
            "class": name,
            "n": int(members.sum()),
            "zero_shot": float(right["train_zero_shot_accuracy"][members].mean()),
            "probe": float(right["hidden_probe_accuracy"][members].mean()),
        }
        for label, name in enumerate(images.names)
        if (members := labels == label).any()
    ]
    notes = [f"only {n} training images: the rehearsal is uncertain"] if n < FEW_IMAGES else []
    grouped = any(group is not None for group in images.groups)
    rows = np.arange(n)
    others = probe.scores.copy()
    others[rows, labels] = -np.inf
    table = pd.DataFrame({
        "id": images.ids, "label": labels, "zero_shot": zero_shot, "probe": probe.predicted,
        "margin": probe.scores[rows, labels] - others.max(axis=1),
    })  # fmt: skip
    result: RehearsalFile = {
        "n": n, "measures": measures, "details": details, "notes": notes,
        "learning_curve": curve, "classes": by_class, "grouped": grouped,
    }  # fmt: skip
    return result, table


def probe_accuracy(probe: ProbeScores, labels: np.ndarray) -> float:
    """Return the share of images whose predicted class is the label."""
    return float((probe.predicted == labels).mean())


def rehearse_on_fewer(
    features: np.ndarray, labels: np.ndarray, folds: np.ndarray, seed: int
) -> list[RehearsalPoint]:
    """Return the probe's accuracy when it is fitted on a share of each fold's training images.

    The shares are drawn by class and nested in each other; up to MOST_TESTED images are tested
    each time. A share that would have less than two images per class is left out.
    """
    rng, n = np.random.default_rng(seed), len(labels)
    order = rng.permutation(n)
    order = order[np.argsort(labels[order], kind="stable")]
    # The k-th image of its class, in random order, as a share of the class.
    counts = np.bincount(labels)
    ranks = np.empty(n)
    ranks[order] = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    tested = ranks.argsort().argsort() < MOST_TESTED  # of each class its share
    points: list[RehearsalPoint] = []
    for share in CURVE_SHARES[:-1]:
        chosen = ranks < share
        if chosen.sum() < 2 * len(counts):
            continue
        probe = cross_validate_ridge(features, labels, folds, chosen, tested)
        size = round(float(chosen.sum()) * (1 - 1 / FOLDS))
        points.append({"n": size, "accuracy": probe_accuracy(probe, labels[tested])})
    return points


def describe_accuracy(right: np.ndarray) -> MeasureDetail:
    """Return an accuracy's 95% Wilson interval, in the form of a measure's detail."""
    low, high = proportion_confint(int(right.sum()), len(right), method="wilson")
    return {"interval": [float(low), float(high)], "curve": [], "variants": {}, "notes": []}


def measure_gain(
    right: np.ndarray, zero_shot_right: np.ndarray
) -> tuple[float | None, MeasureDetail]:
    """Return the share of zero-shot errors that a probe removes; None if there is no error."""
    detail: MeasureDetail = {"interval": None, "curve": [], "variants": {}, "notes": []}
    error = 1 - zero_shot_right.mean()
    if error == 0:
        detail["notes"].append("no training image is classified wrongly zero-shot")
        return None, detail
    return float((right.mean() - zero_shot_right.mean()) / error), detail
