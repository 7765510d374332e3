"""How far fine-tuning moved the embeddings, and the bound that this sets to the change of IIMM.

Niss, Vogt-Lowell and Tsiligkaridis (ICCV 2025) bound the change of IIMM by the Wasserstein
distance between the embeddings' distributions before and after. Of that paper only the abstract
was at hand: the constants are derived here, for unit vectors.

Let x_i, t_c be the embeddings before, x'_i, t'_c those after, N images, C texts, and
w = sum over c of |t_c - t'_c| (N - n_c) / (N (C - 1)), the texts' movement weighted as in the
inter-modal mean (0 where the text tower is frozen).

- |x . t - x' . t'| <= |x - x'| + |t - t'| for unit vectors. Pairing each image with one of its
  own class, the inter-modal mean changes by at most Wc + w, where Wc is the mean over images of
  their class's 1-Wasserstein distance. Classes must be kept, because the mean is over c != y.
- The intra-image mean is (N |m|^2 - 1) / (N - 1), m the mean image, and |m - m'| <= W1, the
  1-Wasserstein distance between the two clouds: it changes by at most 2 N / (N - 1) W1.
- IIMM is the mean of the two. It changes by at most N / (N - 1) W1 + (Wc + w) / 2.

W1 <= Wc <= u, the mean distance that an image moved, so that about 3/2 Wc, and 3/2 u, bound it
too; the last takes no transport, and so no sample: with pairs of images in place of their mean,
the intra-image mean changes by at most 2 u, and IIMM by at most (3 u + w) / 2.
"""

import numpy as np
import ot
from scipy.spatial.distance import cdist

from foretune.core.errors import ForetuneError
from foretune.encoders.streams import ArraySource

# Registers iimm; not `measures`, of which a user adds some: that reruns no evaluation.
from foretune.measures import alignment  # noqa: F401
from foretune.measures.class_statistics import normalize_texts
from foretune.measures.registry import MEASURES
from foretune.measures.task import Task, compute_measure


def wasserstein_distance(before: np.ndarray, after: np.ndarray) -> float:
    """1-Wasserstein distance of two clouds of points (n, d) and (m, d), exact, Euclidean.

    All points of a cloud weigh the same. Time grows as n^3: pass subsamples.
    """
    cost = cdist(before, after)  # ot.dist rounds small distances away
    # Weights default to equal; the limit is far above what 10,000 points take.
    return float(ot.emd2([], [], cost, numItermax=10_000_000))


def measure_drift(
    before: np.ndarray,
    after: np.ndarray,
    labels: np.ndarray,
    texts_before: np.ndarray,
    texts_after: np.ndarray,
    sample: int = 2000,
    seed: int = 0,
) -> dict[str, float]:
    """What tuning did to a task's embeddings.

    before, after: raw or unit embeddings of the same images in the same order (N, d); texts
    likewise (C, d). Returns `iimm_before`, `iimm_after`, `iimm_change`; `mean_displacement`, the mean distance
    from an image's place to its new one; `text_displacement`, likewise over the texts, weighted as in
    the bounds; `bound`, (3 mean_displacement + text_displacement) / 2, which |iimm_change| never exceeds.

    Of `wasserstein_n` images, a random sample of at most `sample`: `wasserstein_distance` between the two
    clouds, `wasserstein_by_class`, and `wasserstein_bound`, the narrower bound from both, which
    is the whole task's where the sample is all images, and an estimate of it else.

    Raises ForetuneError for shapes that differ, and for what `gather` refuses.
    """
    if np.shape(before) != np.shape(after) or np.shape(texts_before) != np.shape(texts_after):
        raise ForetuneError(
            f"embeddings before {np.shape(before)}, {np.shape(texts_before)} and after "
            f"{np.shape(after)}, {np.shape(texts_after)} are not of the same images and texts"
        )
    n, tasks = len(before), []
    for images, texts in ((before, texts_before), (after, texts_after)):
        tasks.append(Task(ArraySource(images, texts, labels), "sums", n))
    iimm = [compute_measure(MEASURES["iimm"], task).value for task in tasks]
    steps = [
        np.linalg.norm(one - other, axis=1)
        for (one, _), (other, _) in zip(tasks[0].blocks(), tasks[1].blocks(), strict=True)
    ]
    mean_displacement = np.concatenate(steps).mean()
    text_steps = np.linalg.norm(
        normalize_texts(texts_before) - normalize_texts(texts_after), axis=1
    )
    counts, classes = tasks[0].statistics.counts, len(text_steps)
    text_displacement = (n - counts) @ text_steps / (n * max(classes - 1, 1))
    rows = np.arange(n)
    if n > sample:
        rows = np.sort(np.random.default_rng(seed).choice(n, sample, replace=False))
    clouds = [Task(ArraySource(x[rows], t, labels[rows]), "sums", n).rows
              for x, t in ((before, texts_before), (after, texts_after))]  # fmt: skip
    labels = np.asarray(labels)[rows]
    whole, few = wasserstein_distance(*clouds), len(rows)
    by_class = sum(
        wasserstein_distance(*(cloud[labels == c] for cloud in clouds)) * (labels == c).sum() / few
        for c in np.unique(labels)
    )
    return {
        "iimm_before": iimm[0],
        "iimm_after": iimm[1],
        "iimm_change": iimm[1] - iimm[0],
        "mean_displacement": float(mean_displacement),
        "text_displacement": float(text_displacement),
        "bound": float((3 * mean_displacement + text_displacement) / 2),
        "wasserstein": whole,
        "wasserstein_by_class": float(by_class),
        "wasserstein_bound": float(
            whole * few / max(few - 1, 1) + (by_class + text_displacement) / 2
        ),
        "wasserstein_n": few,
    }
