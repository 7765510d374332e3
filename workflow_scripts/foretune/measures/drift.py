"""Embedding drift: how far fine-tuning moves the embeddings, and a bound on the change of IIMM.

Niss, Vogt-Lowell and Tsiligkaridis (ICCV 2025) bound the change of IIMM by the Wasserstein
distance between the embeddings' distributions before and after fine-tuning. Only the abstract of
that paper was available to us, so the constants are derived here, for unit vectors.

Let x_i, t_c be the embeddings before and x'_i, t'_c those after, for N images and C texts. Let
w = sum over c of |t_c - t'_c| (N - n_c) / (N (C - 1)), the displacement of the texts weighted as in
the inter-modal mean (0 if the text tower is frozen).

- |x . t - x' . t'| <= |x - x'| + |t - t'| for unit vectors. If each image is paired with one of its
  own class, the inter-modal mean changes by at most Wc + w, where Wc is the mean over images of
  their class's 1-Wasserstein distance. Pairs must stay within a class, because the inter-modal
  mean runs over c != y.
- The intra-image mean is (N |m|^2 - 1) / (N - 1), where m is the mean image. |m - m'| <= W1, the
  1-Wasserstein distance between the two clouds, so it changes by at most 2 N / (N - 1) W1.
- IIMM is the mean of the two. It changes by at most N / (N - 1) W1 + (Wc + w) / 2.

W1 <= Wc <= u, the mean displacement of an image, so that about 3/2 Wc and 3/2 u are bounds too.
The bound from u needs no optimal transport and hence no sample: computed over pairs of images
instead of their mean, the intra-image mean changes by at most 2 u, and IIMM by at most
(3 u + w) / 2.
"""

import numpy as np
import ot
from scipy.spatial.distance import cdist

from foretune.core.errors import ForetuneError
from foretune.encoders.streams import ArraySource

# Registers iimm. `measures.compute` would import the users' own measures too, and a change of
# those would rerun every evaluation.
from foretune.measures import alignment  # noqa: F401
from foretune.measures.accumulate import normalize_texts
from foretune.measures.class_statistics import SUMS
from foretune.measures.registry import MEASURES
from foretune.measures.task import Task, TaskOptions, compute_measure


def wasserstein_distance(before: np.ndarray, after: np.ndarray) -> float:
    """Return the exact 1-Wasserstein distance of two clouds of points (n, d) and (m, d).

    The ground distance is Euclidean, and all points of a cloud have the same weight. Time grows
    as n^3, so pass subsamples.
    """
    cost = cdist(before, after)  # ot.dist rounds small distances to 0
    # Empty weights mean equal ones. The limit is far above what 10,000 points take.
    return float(ot.emd2([], [], cost, numItermax=10_000_000))


def measure_drift(
    before: ArraySource, after: ArraySource, sample: int = 2000, seed: int = 0
) -> dict[str, float]:
    """Measure what fine-tuning did to a task's embeddings.

    Args:
        before, after: embeddings, raw or of unit length, of the same images and texts in the same
            order.
        sample: the most images for the Wasserstein distances.
        seed: for the random sample of a larger task.

    Returns:
        `iimm_before`, `iimm_after` and `iimm_change`.
        `mean_displacement`: mean distance between an image's embeddings before and after.
        `text_displacement`: likewise for the texts, weighted as in the bounds.
        `bound`: (3 mean_displacement + text_displacement) / 2, at least |iimm_change|.
        `wasserstein`, `wasserstein_by_class`: distance between the two clouds of images, and its
            mean over classes, from `wasserstein_n` images.
        `wasserstein_bound`: the tighter bound from these two. It is exact if all images are in
            the sample, and otherwise an estimate.

    Raises:
        ForetuneError: the two are not of the same images and texts, or a vector is refused by
            `accumulate_statistics`.
    """
    if (
        np.shape(before.images) != np.shape(after.images)
        or np.shape(before.texts) != np.shape(after.texts)
        or not np.array_equal(before.labels, after.labels)
    ):
        raise ForetuneError(
            f"embeddings before {np.shape(before.images)}, {np.shape(before.texts)} and after "
            f"{np.shape(after.images)}, {np.shape(after.texts)} are not of the same images and "
            "texts"
        )
    tasks = [make_whole_task(source) for source in (before, after)]
    iimm_before, iimm_after = (compute_measure(MEASURES["iimm"], task).value for task in tasks)
    mean_displacement = np.concatenate(
        [
            np.linalg.norm(rows_before - rows_after, axis=1)
            for (rows_before, _), (rows_after, _) in zip(
                tasks[0].blocks(), tasks[1].blocks(), strict=True
            )
        ]
    ).mean()
    text_displacement = mean_text_displacement(before, after, tasks[0].statistics.counts)
    rows = np.arange(before.n)
    if before.n > sample:
        rows = np.sort(np.random.default_rng(seed).choice(before.n, sample, replace=False))
    overall, by_class = transport_distances(before, after, rows)
    n = len(rows)
    return {
        "iimm_before": iimm_before,
        "iimm_after": iimm_after,
        "iimm_change": iimm_after - iimm_before,
        "mean_displacement": float(mean_displacement),
        "text_displacement": float(text_displacement),
        "bound": float((3 * mean_displacement + text_displacement) / 2),
        "wasserstein": overall,
        "wasserstein_by_class": float(by_class),
        "wasserstein_bound": float(
            overall * n / max(n - 1, 1) + (by_class + text_displacement) / 2
        ),
        "wasserstein_n": n,
    }


def make_whole_task(source: ArraySource) -> Task:
    """Return a task with class sums that holds all its images in memory once they are read."""
    return Task(source, SUMS, TaskOptions(sample=source.n))


def mean_text_displacement(before: ArraySource, after: ArraySource, counts: np.ndarray) -> float:
    """Return w of the module's docstring; counts (C,) are the images per class."""
    displacements = np.linalg.norm(
        normalize_texts(before.texts) - normalize_texts(after.texts), axis=1
    )
    return (before.n - counts) @ displacements / (before.n * max(len(displacements) - 1, 1))


def transport_distances(
    before: ArraySource, after: ArraySource, rows: np.ndarray
) -> tuple[float, float]:
    """Return W1 and Wc of the module's docstring, from the images with these row numbers."""
    labels = np.asarray(before.labels)[rows]
    clouds = [
        make_whole_task(ArraySource(source.images[rows], source.texts, labels)).rows
        for source in (before, after)
    ]
    by_class = sum(
        wasserstein_distance(*(cloud[labels == c] for cloud in clouds)) * (labels == c).sum()
        / len(rows)
        for c in np.unique(labels)
    )  # fmt: skip
    return wasserstein_distance(*clouds), by_class
