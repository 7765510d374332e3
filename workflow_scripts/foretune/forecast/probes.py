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
    """The cross-validated scores (N, C) of a probe, and the penalty that was chosen."""

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


def cross_validate_ridge(
    features: np.ndarray, labels: np.ndarray, folds: np.ndarray, train: np.ndarray | None = None
) -> ProbeScores:
    """Return the scores of a linear probe for each image, fitted without the image's fold.

    The probe is ridge regression on the classes' indicators. One eigendecomposition per fold, of
    the scatter of features or of images, whichever is smaller, serves all penalties. The penalty
    with the highest accuracy is chosen.

    Args:
        features: (N, d), from `standardize_columns`.
        labels: (N,).
        folds: (N,).
        train: a mask (N,) of the images that probes may be fitted on; all by default.
    """
    classes = int(labels.max()) + 1
    scores = np.zeros((len(PENALTIES), len(labels), classes), np.float32)
    for fold in np.unique(folds):
        held, fitted = folds == fold, folds != fold
        if train is not None:
            fitted = fitted & train
        mean = features[fitted].mean(axis=0)
        x, x_held = features[fitted] - mean, features[held] - mean
        y = np.eye(classes, dtype=np.float32)[labels[fitted]]
        y_mean = y.mean(axis=0)
        wide = len(x) <= x.shape[1]
        values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
        values = np.maximum(values, 0)
        projected = vectors.T @ (y - y_mean if wide else x.T @ (y - y_mean))
        rows = (x_held @ x.T if wide else x_held) @ vectors
        for number, penalty in enumerate(PENALTIES):
            shrunk = projected / (values + penalty * values.mean())[:, None]
            scores[number, held] = rows @ shrunk + y_mean
    accuracies = (scores.argmax(axis=2) == labels).mean(axis=1)
    best = int(accuracies.argmax())
    return ProbeScores(scores[best], PENALTIES[best])


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
    count = min(NEIGHBOURS, len(labels) - 1)
    right = np.zeros(len(queries), bool)
    for start in range(0, len(queries), QUERY_BLOCK):
        block = queries[start : start + QUERY_BLOCK]
        similarity = vectors[block] @ vectors.T
        similarity[folds[block][:, None] == folds] = -np.inf
        nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        weights = np.exp(np.take_along_axis(similarity, nearest, axis=1))
        votes = np.zeros((len(block), int(labels.max()) + 1))
        np.add.at(votes, (np.arange(len(block))[:, None], labels[nearest]), weights)
        right[start : start + len(block)] = votes.argmax(axis=1) == labels[block]
    return right


def cross_validate_centroids(
    vectors: np.ndarray, labels: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """Return the class (N,) whose mean of unit vectors (N, d), without the fold, is nearest."""
    classes = int(labels.max()) + 1
    predicted = np.zeros(len(labels), int)
    for fold in np.unique(folds):
        held, fitted = folds == fold, folds != fold
        sums = np.zeros((classes, vectors.shape[1]), vectors.dtype)
        np.add.at(sums, labels[fitted], vectors[fitted])
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        similarity = vectors[held] @ (sums / np.where(lengths > 0, lengths, 1)).T
        similarity[:, lengths[:, 0] == 0] = -np.inf  # the class is in the fold only
        predicted[held] = similarity.argmax(axis=1)
    return predicted
