"""Clustering scores of two clusters, all N images and all C texts, with scikit-learn's conventions.

A sum over a cluster's points of the cosine distance to x is n - x . (sum of the cluster), and a
sum of squared distances is one of squared lengths, so that those scores cost O((N + C) d); only
the Euclidean silhouette and the entropy see pairs.

Source: "Zero-Shot Embeddings Inform Learning and Forgetting with Vision-Language Encoders",
appendix A.1.3; Rousseeuw 1987, Davies and Bouldin 1979, Calinski and Harabasz 1974.
"""

import numpy as np
from scipy.special import logsumexp

from foretune.measures.class_statistics import ClassStatistics
from foretune.measures.registry import MATRIX, ROWS, UndefinedMeasure, measure
from foretune.measures.task import Task

TILE_ROWS = 2048  # rows and columns of a tile of pairs: 16 MB of float32


def check_two_clusters(images: int, texts: int) -> None:
    if images + texts < 3:
        raise UndefinedMeasure("one image and one text are too few points for two clusters")


def silhouette_samples(own: np.ndarray, other: np.ndarray, size: int) -> np.ndarray:
    """(b - a) / max(a, b) from the sums of distances to the own cluster and the other's mean.

    0 for a cluster of one point, and where both are 0.
    """
    if size == 1:
        return np.zeros(len(own))
    # What rounding leaves of a distance of 0 would be a silhouette of any value.
    own, other = (np.where(each > 1e-14, each, 0) for each in (own / (size - 1), other))
    larger = np.maximum(own, other)
    return np.divide(other - own, larger, out=np.zeros_like(larger, float), where=larger > 0)


@measure("Silhouette with the cosine distance, Rousseeuw 1987", ROWS)
def silhouette_cosine(task: Task) -> float:
    """Mean silhouette over images and texts, distance 1 - x . y; 0 for a cluster of one."""
    s = task.statistics
    classes = len(s.texts)
    check_two_clusters(s.n, classes)
    to = np.stack([s.total, s.text_total], axis=1)
    sum_of = 0.0
    for block, _ in task.blocks():
        own, other = (block @ to.astype(block.dtype)).T
        sum_of += silhouette_samples(s.n - own, 1 - other / classes, s.n).sum(dtype=float)
    other, own = (s.texts @ to).T
    sum_of += silhouette_samples(classes - own, 1 - other / s.n, classes).sum()
    return sum_of / (s.n + classes)


def euclidean_distances(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Euclidean distances of rows (a, d) and (b, d) of float32, written into out (a, b)."""
    np.matmul(x, y.T, out=out)
    out *= -2
    out += np.einsum("nd,nd->n", x, x)[:, None]
    out += np.einsum("nd,nd->n", y, y)
    np.maximum(out, 0, out=out)
    return np.sqrt(out, out=out)


@measure("Silhouette with the Euclidean distance, Rousseeuw 1987", MATRIX)
def silhouette_euclidean(task: Task) -> float:
    """Mean silhouette over images and texts; 0 for a cluster of one.

    All pairs are formed once, by the tile and in float32: centred by the mean image, which
    keeps what near pairs lose to rounding small, and summed in float64.
    """
    n, classes, center = task.n, len(task.texts), task.statistics.mean
    check_two_clusters(n, classes)
    points, start = np.empty((n, len(center)), np.float32), 0
    for block, _ in task.blocks():
        points[start : start + len(block)] = block - center
        start += len(block)
    texts = (task.texts - center).astype(np.float32)
    own, buffer = np.zeros(n), np.empty((TILE_ROWS, TILE_ROWS), np.float32)
    ones = np.ones(TILE_ROWS, np.float32)
    for i in range(0, n, TILE_ROWS):
        for j in range(i, n, TILE_ROWS):
            a, b = points[i : i + TILE_ROWS], points[j : j + TILE_ROWS]
            tile = buffer.reshape(-1)[: len(a) * len(b)].reshape(len(a), len(b))
            euclidean_distances(a, b, tile)
            if i == j:
                np.fill_diagonal(tile, 0)
            else:
                own[j : j + len(b)] += ones[: len(a)] @ tile
            own[i : i + len(a)] += tile @ ones[: len(b)]
    to_texts, to_images = np.empty(n), np.zeros(classes)
    for i in range(0, n, TILE_ROWS):
        part = points[i : i + TILE_ROWS]
        tile = euclidean_distances(part, texts, np.empty((len(part), classes), np.float32))
        to_texts[i : i + TILE_ROWS] = tile.mean(1, dtype=float)
        to_images += tile.sum(0, dtype=float)
    within = euclidean_distances(texts, texts, np.empty((classes, classes), np.float32))
    np.fill_diagonal(within, 0)
    values = silhouette_samples(own, to_texts, n)
    of_texts = silhouette_samples(within.sum(1, dtype=float), to_images / n, classes)
    return (values.sum() + of_texts.sum()) / (n + classes)


@measure("Davies and Bouldin 1979", ROWS)
def davies_bouldin(task: Task) -> float:
    """(mean distance to the own centroid, of both) / distance of the centroids; 0 if that is 0."""
    s = task.statistics
    check_two_clusters(s.n, len(s.texts))
    centers = s.mean, s.text_total / len(s.texts)
    apart = np.linalg.norm(centers[0] - centers[1])
    of_texts = np.linalg.norm(s.texts - centers[1], axis=1).mean()
    of_images = 0.0
    for block, _ in task.blocks():
        centred = block - centers[0].astype(block.dtype)
        of_images += np.sqrt(np.einsum("nd,nd->n", centred, centred)).sum(dtype=float)
    if np.isclose(apart, 0) or np.allclose([of_images / s.n, of_texts], 0):
        return 0.0
    return (of_images / s.n + of_texts) / apart


@measure("Calinski and Harabasz 1974")
def calinski_harabasz(s: ClassStatistics) -> float:
    """Scatter between over scatter within the two clusters, by degrees of freedom; 1 if none."""
    classes = len(s.texts)
    check_two_clusters(s.n, classes)
    centers = np.stack([s.mean, s.text_total / classes])
    sizes = np.array([s.n, classes])
    middle = sizes @ centers / sizes.sum()
    between = sizes @ ((centers - middle) ** 2).sum(1)
    # Of unit rows: the mean squared distance to the centroid is 1 - |centroid|^2.
    spread = 1 - (centers**2).sum(1)
    within = sizes @ np.where(spread > 1e-14, spread, 0)
    return between * (sizes.sum() - 2) / within if within else 1.0


def density_entropy(points: np.ndarray) -> float:
    """-mean log density, in nats, by an isotropic Gaussian kernel with Scott's bandwidth."""
    n, width = points.shape
    variance = points.var(0).mean()
    if n < 2 or variance < 1e-14:
        raise UndefinedMeasure("a cluster of equal points has no density")
    bandwidth = variance * n ** (-2 / (width + 4))
    squares = np.einsum("nd,nd->n", points, points)
    logs = np.empty(n)
    for i in range(0, n, TILE_ROWS):
        part = points[i : i + TILE_ROWS]
        apart = squares[i : i + TILE_ROWS, None] + squares - 2 * part @ points.T
        logs[i : i + TILE_ROWS] = logsumexp(-np.maximum(apart, 0) / (2 * bandwidth), axis=1)
    return -logs.mean() + np.log(n) + width / 2 * np.log(2 * np.pi * bandwidth)


@measure("Clustering entropy, total, appendix A.1.3", MATRIX, default=False)
def entropy_total(task: Task) -> float:
    """Mean of the entropies of images and texts, weighted by their numbers (nats)."""
    n, classes = len(task.rows), len(task.texts)
    center = task.rows.mean(0)
    entropies = [density_entropy(points - center) for points in (task.rows, task.texts)]
    return (n * entropies[0] + classes * entropies[1]) / (n + classes)


@measure("Clustering entropy, single cluster, appendix A.1.3", MATRIX, default=False)
def entropy_single(task: Task) -> float:
    """The entropy of images and texts as one cluster (nats)."""
    return density_entropy(np.concatenate([task.rows, task.texts]) - task.rows.mean(0))
