"""Which classes are taken for which: counts among the most confused classes of each test."""

import numpy as np

MAX_CONFUSED_CLASSES = 8  # of a test, at most: as many as a matrix on a telephone holds


def find_most_confused(counts: np.ndarray, most: int = MAX_CONFUSED_CLASSES) -> np.ndarray:
    """The classes of the most frequent confusions, of a matrix (C, C) of true x predicted.

    Pairs are taken by how often either is taken for the other, until `most` classes are found;
    a pair that would be one class too many is skipped. Returns ascending rows; empty where all
    predictions are right.
    """
    either = np.triu(counts + counts.T, 1)
    first, second = np.nonzero(either)
    chosen: set[int] = set()
    for pair in np.argsort(-either[first, second], kind="stable"):
        grown = chosen | {int(first[pair]), int(second[pair])}
        if len(grown) <= most:
            chosen = grown
        if len(chosen) == most:
            break
    return np.array(sorted(chosen), dtype=int)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """The matrix (C, C) of how many images of a class, in rows, were given each class."""
    pairs = np.bincount(labels * classes + predicted, minlength=classes**2)
    return pairs.reshape(classes, classes)


def count_confusions(labels: np.ndarray, predicted: np.ndarray, names: list[str]) -> list[dict]:
    """Rows of (class, predicted, n, class_n, share) among a test's most confused classes.

    labels, predicted: (N,) rows of `names`, the classes; a row for each pair that occurs. share:
    n over class_n, the test's images of the class.
    """
    counts = confusion_matrix(labels, predicted, len(names))
    some, totals = find_most_confused(counts), counts.sum(axis=1)
    return [
        {"class": names[i], "predicted": names[j], "n": int(counts[i, j]),
         "class_n": int(totals[i]), "share": float(counts[i, j] / totals[i])}
        for i in some for j in some if counts[i, j]
    ]  # fmt: skip
