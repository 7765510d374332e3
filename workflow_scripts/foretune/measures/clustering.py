"""Clustering scores of two clusters, all N images and all C texts, with scikit-learn's conventions.

The sum of the cosine distances from x to the points of a cluster is n - x . (sum of the cluster),
and a sum of squared distances follows from squared lengths, so those scores cost O((N + C) d).
Only the Euclidean silhouette and the entropy compute all pairs.

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
    """Raise UndefinedMeasure for fewer than three points."""
    if images + texts < 3:
        raise UndefinedMeasure("one image and one text are too few points for two clusters")


def silhouette_samples(own: np.ndarray, other: np.ndarray, size: int) -> np.ndarray:
    """Return each point's silhouette (b - a) / max(a, b); 0 for a cluster of one point.

    own: (n,), sums of the distances to the points of the own cluster; a is their mean.
    other: (n,), mean distances to the other cluster, b. The silhouette is 0 if a and b are 0.
    size: number of points of the own cluster.
    """
    if size == 1:
        return np.zeros(len(own))
    # A distance of 0 with a rounding error would give an arbitrary silhouette.
    own, other = (np.where(mean > 1e-14, mean, 0) for mean in (own / (size - 1), other))
    larger = np.maximum(own, other)
    return np.divide(other - own, larger, out=np.zeros_like(larger, float), where=larger > 0)


@measure("Silhouette with the cosine distance, Rousseeuw 1987", ROWS)
def silhouette_cosine(task: Task) -> float:
    """Mean silhouette over images and texts, distance 1 - x . y; 0 for a cluster of one."""
    s = task.statistics
    classes = len(s.texts)
    check_two_clusters(s.n, classes)
    cluster_sums = np.stack([s.total, s.text_total], axis=1)
    silhouettes = 0.0
    for block, _ in task.blocks():
        own, other = (block @ cluster_sums.astype(block.dtype)).T
        silhouettes += silhouette_samples(s.n - own, 1 - other / classes, s.n).sum(dtype=float)
    other, own = (s.texts @ cluster_sums).T
    silhouettes += silhouette_samples(classes - own, 1 - other / s.n, classes).sum()
    return silhouettes / (s.n + classes)


def euclidean_distances(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Write the Euclidean distances of rows x (a, d) and y (b, d) into out (a, b); all float32."""
    np.matmul(x, y.T, out=out)
    out *= -2
    out += np.einsum("nd,nd->n", x, x)[:, None]
    out += np.einsum("nd,nd->n", y, y)
    np.maximum(out, 0, out=out)
    return np.sqrt(out, out=out)


def sum_distances_within(points: np.ndarray) -> np.ndarray:
    """Return (n,) float64: the sum of each point's distances to all points (n, d) of float32."""
    n = len(points)
    sums, buffer = np.zeros(n), np.empty((TILE_ROWS, TILE_ROWS), np.float32)
    ones = np.ones(TILE_ROWS, np.float32)
    for i in range(0, n, TILE_ROWS):
        for j in range(i, n, TILE_ROWS):
            a, b = points[i : i + TILE_ROWS], points[j : j + TILE_ROWS]
            tile = buffer.reshape(-1)[: len(a) * len(b)].reshape(len(a), len(b))
            euclidean_distances(a, b, tile)
            if i == j:
                np.fill_diagonal(tile, 0)
            else:
                sums[j : j + len(b)] += ones[: len(a)] @ tile
            sums[i : i + len(a)] += tile @ ones[: len(b)]
    return sums


@measure("Silhouette with the Euclidean distance, Rousseeuw 1987", MATRIX)
def silhouette_euclidean(task: Task) -> float:
    """Mean silhouette over images and texts; 0 for a cluster of one.

    Each pair is computed once, in tiles and in float32. Points are centred at the mean image,
    which keeps the rounding error of close pairs small. Sums over tiles are in float64.
    """
    n, classes, center = task.n, len(task.texts), task.statistics.mean
    check_two_clusters(n, classes)
    points, start = np.empty((n, len(center)), np.float32), 0
    for block, _ in task.blocks():
        points[start : start + len(block)] = block - center
        start += len(block)
    texts = (task.texts - center).astype(np.float32)
    to_texts, to_images = np.empty(n), np.zeros(classes)
    among_images = sum_distances_within(points)
    for i in range(0, n, TILE_ROWS):
        part = points[i : i + TILE_ROWS]
        tile = euclidean_distances(part, texts, np.empty((len(part), classes), np.float32))
        to_texts[i : i + TILE_ROWS] = tile.mean(1, dtype=float)
        to_images += tile.sum(0, dtype=float)
    among_texts = euclidean_distances(texts, texts, np.empty((classes, classes), np.float32))
    np.fill_diagonal(among_texts, 0)
    image_values = silhouette_samples(among_images, to_texts, n)
    text_values = silhouette_samples(among_texts.sum(1, dtype=float), to_images / n, classes)
    return (image_values.sum() + text_values.sum()) / (n + classes)


@measure("Davies and Bouldin 1979", ROWS)
def davies_bouldin(task: Task) -> float:
    """Sum of both clusters' mean distances to their centroid / distance of the centroids.

    0 if the distance of the centroids or both mean distances are 0.
    """
    s = task.statistics
    check_two_clusters(s.n, len(s.texts))
    centers = s.mean, s.text_total / len(s.texts)
    apart = np.linalg.norm(centers[0] - centers[1])
    text_spread = np.linalg.norm(s.texts - centers[1], axis=1).mean()
    image_distances = 0.0
    for block, _ in task.blocks():
        centred = block - centers[0].astype(block.dtype)
        image_distances += np.sqrt(np.einsum("nd,nd->n", centred, centred)).sum(dtype=float)
    image_spread = image_distances / s.n
    if np.isclose(apart, 0) or np.allclose([image_spread, text_spread], 0):
        return 0.0
    return (image_spread + text_spread) / apart


@measure("Calinski and Harabasz 1974")
def calinski_harabasz(s: ClassStatistics) -> float:
    """Scatter between / scatter within the two clusters, each per degree of freedom.

    1 if there is no scatter within.
    """
    classes = len(s.texts)
    check_two_clusters(s.n, classes)
    centers = np.stack([s.mean, s.text_total / classes])
    sizes = np.array([s.n, classes])
    middle = sizes @ centers / sizes.sum()
    between = sizes @ ((centers - middle) ** 2).sum(1)
    # For unit rows, the mean squared distance to the centroid is 1 - |centroid|^2.
    spread = 1 - (centers**2).sum(1)
    within = sizes @ np.where(spread > 1e-14, spread, 0)
    return between * (sizes.sum() - 2) / within if within else 1.0


def density_entropy(points: np.ndarray) -> float:
    """Return the mean of -log density over the points (n, d), in nats.

    The density estimate has an isotropic Gaussian kernel with Scott's bandwidth.
    """
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
    """Mean of the entropies of images and of texts, weighted by their numbers, in nats."""
    n, classes = len(task.rows), len(task.texts)
    center = task.rows.mean(0)
    entropies = [density_entropy(points - center) for points in (task.rows, task.texts)]
    return (n * entropies[0] + classes * entropies[1]) / (n + classes)


@measure("Clustering entropy, single cluster, appendix A.1.3", MATRIX, default=False)
def entropy_single(task: Task) -> float:
    """Entropy of images and texts as one cluster, in nats."""
    return density_entropy(np.concatenate([task.rows, task.texts]) - task.rows.mean(0))
