"""Transfer scores from regularized linear discriminants: SFDA and NCTI."""

import numpy as np
from scipy import linalg

from foretune.measures.class_statistics import (
    ClassStatistics,
    add_outer_products,
    one_hot,
    symmetrize,
)
from foretune.measures.registry import MATRIX, ROWS, MeasureResult, UndefinedMeasure, measure
from foretune.measures.task import Task


def check_two_classes(s: ClassStatistics) -> None:
    if len(s.present) < 2:
        raise UndefinedMeasure("one class needs no discriminant")
    if not np.trace(s.scatter) > 1e-14 * s.n:
        raise UndefinedMeasure("all images are the same")


def shrink_covariance(matrix: np.ndarray, shrinkage: float) -> np.ndarray:
    """(1 - shrinkage) matrix + shrinkage mean(diagonal) I."""
    result = (1 - shrinkage) * matrix
    result.flat[:: len(matrix) + 1] += shrinkage * np.trace(matrix) / len(matrix)
    return result


def linear_discriminant(within: np.ndarray, means: np.ndarray, priors: np.ndarray):
    """Coefficients (d, K) and intercepts (K,) of the discriminant of a within-class covariance.

    Of generalized eigenvectors V with V' within V = I, V V' is the inverse of `within`, so that
    a Cholesky factor serves where the public code solves the eigenproblem.
    """
    try:
        factor = linalg.cho_factor(within, check_finite=False)
    except linalg.LinAlgError:
        raise UndefinedMeasure("the classes do not vary within") from None
    coefficients = linalg.cho_solve(factor, means.T, check_finite=False)
    return coefficients, np.log(priors) - np.einsum("kd,dk->k", means, coefficients) / 2


def discriminant_probabilities(scores: np.ndarray) -> np.ndarray:
    """Softmax of each row, in place."""
    scores -= scores.max(1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(1, keepdims=True)
    return scores


def largest_eigenvalue(matrix: np.ndarray) -> float:
    """By three double steps of the power method from the row sums, as the public SFDA has it."""
    x = matrix.sum(1)
    for _ in range(3):
        y = matrix @ x
        y /= np.linalg.norm(y)
        x = matrix @ y
        x /= np.linalg.norm(x)
    return x @ matrix @ y


def nuclear_norm(matrix: np.ndarray) -> float:
    """Sum of the singular values; of a tall matrix, to about 1e-8, by its Gram matrix."""
    if len(matrix) < 3 * matrix.shape[1]:
        return np.linalg.svd(matrix, compute_uv=False).sum()
    return np.sqrt(np.maximum(np.linalg.eigvalsh(matrix.T @ matrix), 0)).sum()


@measure("SFDA, Shao et al. 2022", ROWS, higher_is_better=True)
def sfda(task: Task) -> float:
    """Mean probability of the true class by the second of two discriminants, in [0, 1].

    The first gives each image a confidence p, the softmax of its class probabilities at its
    class; p x + (1 - p) (mean of the other classes' means) takes its place (ConfMix); the second
    is fitted to those. Both shrink the within-class covariance by exp(-5 lambda_max), of the
    first. Three passes: statistics, ConfMix's statistics, the second's probabilities.
    """
    s = task.statistics
    check_two_classes(s)
    classes, counts = len(s.present), s.counts[s.present]
    number = np.full(len(s.counts), -1)
    number[s.present] = np.arange(classes)
    priors, means = counts / s.n, s.class_means
    within = (s.scatter - s.between) / s.n
    shrinkage = max(np.exp(-5 * largest_eigenvalue(within)), 1e-10)
    first, intercepts = linear_discriminant(shrink_covariance(within, shrinkage), means, priors)
    others = (means.sum(0) - means) / (classes - 1)

    confidence = np.empty(task.n)
    sums, moment, start = np.zeros(means.shape), np.zeros(within.shape), 0
    for block, stored in task.blocks():
        rows, labels = block - s.mean.astype(block.dtype), number[stored]
        likely = discriminant_probabilities(rows @ first.astype(rows.dtype) + intercepts)
        np.exp(likely, out=likely)
        sure = likely[np.arange(len(rows)), labels] / likely.sum(1)
        confidence[start : start + len(rows)] = sure
        start += len(rows)
        rows *= sure[:, None].astype(rows.dtype)
        mixed_in = others[labels]
        mixed_in *= (1 - sure)[:, None]
        rows += mixed_in
        add_outer_products(moment, rows)
        sums += one_hot(labels, classes) @ rows
    moment = symmetrize(moment)
    mixed = sums / counts[:, None]
    within = (moment - (mixed * counts[:, None]).T @ mixed) / s.n
    second, intercepts = linear_discriminant(shrink_covariance(within, shrinkage), mixed, priors)

    at_others, total, start = others @ second, 0.0, 0
    for block, stored in task.blocks():
        rows, labels = block - s.mean.astype(block.dtype), number[stored]
        sure = confidence[start : start + len(rows), None]
        start += len(rows)
        scores = rows @ second.astype(rows.dtype) * sure + at_others[labels] * (1 - sure)
        total += discriminant_probabilities(scores + intercepts)[np.arange(len(rows)), labels].sum()
    return total / s.n


@measure("NCTI, Wang et al. 2023", MATRIX, higher_is_better=True)
def ncti(task: Task) -> MeasureResult:
    """ncc + seli - vc, its variants, of a shrinkage discriminant after PCA to 64 dimensions.

    seli: nuclear norm of the centred discriminant features; ncc: mean probability of the true
    class; vc: log of the sum over classes of the nuclear norms of their images' probabilities.
    The paper scales each to [0, 1] over the models that it compares before adding them, which
    `foretune.analyze` does where a dataset has several models; this is the sum as it is.

    The PCA has min(64, d, N - 1) components and, unlike the public code's, nothing random.
    """
    s = task.statistics
    check_two_classes(s)
    kept = min(64, s.texts.shape[1], s.n - 1)
    values, vectors = np.linalg.eigh(s.scatter)
    axes = vectors[:, ::-1][:, :kept]
    values = np.maximum(values[::-1][:kept], 0)
    shrinkage = max(np.exp(-values[:32].sum() / (s.n - 1)), 1e-10)

    counts = s.counts[s.present]
    priors, means = counts / s.n, s.class_means @ axes
    within = np.diag(values) / s.n - (means * priors[:, None]).T @ means
    inner = shrink_covariance(within, shrinkage)
    coefficients, intercepts = linear_discriminant(inner, means, priors)

    # Features are the leading generalized eigenvectors' scores; their Gram matrix is known.
    between = shrink_covariance(np.diag(values) / s.n, shrinkage) - inner
    few = min(len(counts) - 1, kept)
    leading = linalg.eigh(between, inner, subset_by_index=[kept - few, kept - 1])[1]
    gram = (leading.T * values) @ leading
    seli = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0)).sum()

    center, right, nuclear, start = s.mean @ axes, 0.0, 0.0, 0
    projected, labels = zip(*((b @ axes - center, y) for b, y in task.blocks()), strict=True)
    projected, order = np.concatenate(projected), np.argsort(np.concatenate(labels), kind="stable")
    for i, count in enumerate(counts):
        rows = projected[order[start : start + count]]
        start += count
        likely = discriminant_probabilities(rows @ coefficients + intercepts)
        right += likely[:, i].sum()
        nuclear += nuclear_norm(likely)
    terms = {"seli": seli, "ncc": right / s.n, "vc": np.log(nuclear)}
    return MeasureResult(terms["ncc"] + terms["seli"] - terms["vc"], terms)
