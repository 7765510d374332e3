"""Classifiers on cached embeddings in closed form, tested by cross-validation.

Everything here works on arrays and needs neither torch nor a GPU. Labels are 0 to C - 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Ridge penalties to choose from, as shares of the mean eigenvalue of the features' scatter.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
NEIGHBOURS = 10
# Neighbours are searched for this many images at most: every search goes through all images.
MOST_QUERIES = 5000
QUERY_BLOCK = 1000


@dataclass(frozen=True)
class ProbeScores:
    """The cross-validated scores (N, C) of a probe on N images, and the penalty of the choice."""

    scores: np.ndarray
    penalty: float

    @property
    def predicted(self) -> np.ndarray:
        """The class (N,) with the highest score."""
        return self.scores.argmax(axis=1)


def draw_folds(
    labels: np.ndarray, groups: Sequence | np.ndarray | None, count: int, seed: int
) -> np.ndarray:
    """Return the fold (N,) of each image, drawn by class, with whole groups in one fold.

    Args:
        labels: (N,).
        groups: of the N images; None, or None for an image, makes it a group of its own.
        count: number of folds.
    """
    names = [
        f"\0{number}" if group is None else str(group)
        for number, group in enumerate([None] * len(labels) if groups is None else groups)
    ]
    _, first, units = np.unique(np.array(names), return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(first))
    # In the order of classes, consecutive groups go to different folds.
    order = order[np.argsort(labels[first][order], kind="stable")]
    folds = np.empty(len(first), int)
    folds[order] = np.arange(len(first)) % count
    return folds[units]


def standardize_columns(*features: np.ndarray) -> np.ndarray:
    """Return features (N, d_i) side by side, (N, sum of d_i) in float32.

    Each column has mean 0 and variance 1 / d_i, so that every kind of feature has the same share.
    A constant column becomes 0.
    """
    parts = []
    for matrix in features:
        matrix = np.asarray(matrix, np.float32)
        deviation = matrix.std(axis=0)
        scale = np.where(deviation > 0, deviation, np.inf) * np.sqrt(matrix.shape[1])
        parts.append((matrix - matrix.mean(axis=0)) / scale)
    return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class ClassSums:
    """Sums over images: their counts (C,) and features (C, d) by class."""

    counts: np.ndarray
    features: np.ndarray

    @classmethod
    def collect(cls, features: np.ndarray, labels: np.ndarray, classes: int) -> "ClassSums":
        """Sum the features (N, d) of each class."""
        counts, sums = (
            np.bincount(labels, minlength=classes),
            np.zeros((classes, features.shape[1]), features.dtype),
        )
        if len(labels):
            present, starts = np.flatnonzero(counts), np.cumsum(counts) - counts
            order = np.argsort(labels, kind="stable")
            sums[present] = np.add.reduceat(features[order], starts[present], axis=0)
        return cls(counts, sums)

    def __sub__(self, other: "ClassSums") -> "ClassSums":
        return ClassSums(self.counts - other.counts, self.features - other.features)


def cross_validate_ridge(
    features: np.ndarray, labels: np.ndarray, folds: np.ndarray, train: np.ndarray | None = None,
    tested: np.ndarray | None = None,
) -> ProbeScores:  # fmt: skip
    """Return the scores of a linear probe for each image, fitted without the image's fold.

    The probe is ridge regression on the classes' indicators. One eigendecomposition per fold, of
    the scatter of features or of images, whichever is smaller, serves all penalties. The sums of a
    fit are those over all images without the fold's own. The penalty with the highest accuracy is
    chosen.

    Args:
        features: (N, d), from `standardize_columns`.
        labels: (N,).
        folds: (N,).
        train: a mask (N,) of the images that probes may be fitted on; all by default.
        tested: a mask (N,) of the images that probes are tested on, and whose scores are returned;
            all by default.
    """
    classes, everything = int(labels.max()) + 1, np.ones(len(labels), bool)
    train = everything if train is None else train
    chosen = np.flatnonzero(everything if tested is None else tested)
    chosen = chosen[np.argsort(folds[chosen], kind="stable")]  # a fold's images are one block
    scores = np.empty((len(PENALTIES), len(chosen), classes), np.float32)
    sums, scatter = ClassSums.collect(features[train], labels[train], classes), None
    for fold in np.unique(folds):
        own, fitted = (folds == fold) & train, (folds != fold) & train
        held, n = np.flatnonzero(folds[chosen] == fold), int(fitted.sum())
        if not len(held):
            continue
        rest = sums - ClassSums.collect(features[own], labels[own], classes)
        mean, y_mean = rest.features.sum(axis=0) / n, (rest.counts / n).astype(np.float32)
        x_held = features[chosen[held]] - mean
        if n <= features.shape[1]:
            x = features[fitted] - mean
            y = np.eye(classes, dtype=np.float32)[labels[fitted]] - y_mean
            values, vectors = np.linalg.eigh(x @ x.T)
            projected, rows = vectors.T @ y, (x_held @ x.T) @ vectors
        else:
            if scatter is None:
                scatter = features[train].T @ features[train]
            others = scatter - features[own].T @ features[own] - n * np.outer(mean, mean)
            values, vectors = np.linalg.eigh(others)
            products = rest.features - rest.counts[:, None].astype(np.float32) * mean
            projected, rows = vectors.T @ products.T, x_held @ vectors
        values = np.maximum(values, 0)
        block = scores[:, held[0] : held[-1] + 1]
        for part, penalty in zip(block, PENALTIES, strict=True):
            np.matmul(rows, projected / (values + penalty * values.mean())[:, None], out=part)
        block += y_mean
    best = int((scores.argmax(axis=2) == labels[chosen]).mean(axis=1).argmax())
    return ProbeScores(scores[best, np.argsort(chosen)], PENALTIES[best])


def cross_validate_neighbours(
    vectors: np.ndarray, labels: np.ndarray, folds: np.ndarray, seed: int
) -> np.ndarray:
    """Return whether the nearest neighbours' vote is right, for up to MOST_QUERIES images.

    The neighbours are the NEIGHBOURS most similar images of the other folds. A vote counts by its
    similarity.

    Args:
        vectors: (N, d) of unit length.
    """
    queries = np.arange(len(labels))
    if len(queries) > MOST_QUERIES:
        queries = np.sort(np.random.default_rng(seed).permutation(queries)[:MOST_QUERIES])
    right, classes = np.zeros(len(queries), bool), int(labels.max()) + 1
    for fold in np.unique(folds[queries]):
        others, places = folds != fold, np.flatnonzero(folds[queries] == fold)
        candidates, their_labels = vectors[others], labels[others]
        count = min(NEIGHBOURS, len(candidates))
        for start in range(0, len(places), QUERY_BLOCK):
            block = places[start : start + QUERY_BLOCK]
            similarity = vectors[queries[block]] @ candidates.T
            nearest = np.argpartition(similarity, -count, axis=1)[:, -count:]
            weights = np.exp(np.take_along_axis(similarity, nearest, axis=1))
            votes = np.zeros((len(block), classes))
            np.add.at(votes, (np.arange(len(block))[:, None], their_labels[nearest]), weights)
            right[block] = votes.argmax(axis=1) == labels[queries[block]]
    return right


def cross_validate_centroids(
    vectors: np.ndarray, labels: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """Return the class (N,) whose mean of unit vectors (N, d), without the fold, is nearest."""
    classes = int(labels.max()) + 1
    predicted, sums = np.zeros(len(labels), int), ClassSums.collect(vectors, labels, classes)
    for fold in np.unique(folds):
        held = folds == fold
        rest = sums - ClassSums.collect(vectors[held], labels[held], classes)
        empty = rest.counts == 0  # the class is in the fold only
        lengths = np.linalg.norm(rest.features, axis=1, keepdims=True)
        lengths[empty] = 1
        similarity = vectors[held] @ (rest.features / lengths).T
        similarity[:, empty] = -np.inf
        predicted[held] = similarity.argmax(axis=1)
    return predicted
