"""Confusion counts among the classes that a model confuses most on a test."""

from typing import TypedDict

import numpy as np

MAX_CONFUSED_CLASSES = 8  # per test: as many as a matrix on a telephone's screen can show

# How many of the `class_n` images of `class` are predicted as `predicted`. In this form of a
# TypedDict a key may be a Python keyword.
Confusion = TypedDict(
    "Confusion",
    {"class": str, "predicted": str, "n": int, "class_n": int, "share": float},
)


def find_most_confused(counts: np.ndarray, most: int = MAX_CONFUSED_CLASSES) -> np.ndarray:
    """Return the classes that take part in the most frequent confusions.

    Pairs of classes are taken in descending order of how often either is predicted for the other,
    until `most` classes are chosen. A pair that would exceed `most` is skipped.

    Args:
        counts: confusion matrix (C, C), true classes in rows, predicted classes in columns.

    Returns:
        Class indices in ascending order; empty if every prediction is right.
    """
    either_way = np.triu(counts + counts.T, 1)
    first, second = np.nonzero(either_way)
    chosen: set[int] = set()
    for pair in np.argsort(-either_way[first, second], kind="stable"):
        grown = chosen | {int(first[pair]), int(second[pair])}
        if len(grown) <= most:
            chosen = grown
        if len(chosen) == most:
            break
    return np.array(sorted(chosen), dtype=int)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return the counts (C, C) of images by true class (rows) and predicted class (columns)."""
    pairs = np.bincount(labels * classes + predicted, minlength=classes**2)
    return pairs.reshape(classes, classes)


def count_confusions(
    labels: np.ndarray, predicted: np.ndarray, names: list[str]
) -> list[Confusion]:
    """Return one row per pair of a test's most confused classes that occurs.

    Args:
        labels, predicted: indices (N,) into `names`.
        names: the names of all classes.

    Returns:
        Rows with `n` images of `class` predicted as `predicted`, out of the `class_n` images of
        that class in the test; `share` is n / class_n.
    """
    counts = confusion_matrix(labels, predicted, len(names))
    confused, totals = find_most_confused(counts), counts.sum(axis=1)
    return [
        {"class": names[i], "predicted": names[j], "n": int(counts[i, j]),
         "class_n": int(totals[i]), "share": float(counts[i, j] / totals[i])}
        for i in confused for j in confused if counts[i, j]
    ]  # fmt: skip
