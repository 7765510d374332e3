"""Transfer scores from regularized linear discriminants: SFDA and NCTI."""

import numpy as np
from scipy import linalg

from foretune.measures.accumulate import add_outer_products, one_hot, symmetrize
from foretune.measures.class_statistics import ClassStatistics
from foretune.measures.registry import MATRIX, ROWS, MeasureResult, UndefinedMeasure, measure
from foretune.measures.task import Task


def check_two_classes(s: ClassStatistics) -> None:
    """Raise UndefinedMeasure for a single class and for images that are all the same."""
    if len(s.present) < 2:
        raise UndefinedMeasure("one class needs no discriminant")
    if not np.trace(s.scatter) > 1e-14 * s.n:
        raise UndefinedMeasure("all images are the same")


def shrink_covariance(matrix: np.ndarray, shrinkage: float) -> np.ndarray:
    """Return (1 - shrinkage) matrix + shrinkage mean(diagonal) I."""
    result = (1 - shrinkage) * matrix
    result.flat[:: len(matrix) + 1] += shrinkage * np.trace(matrix) / len(matrix)
    return result


def linear_discriminant(
    within: np.ndarray, means: np.ndarray, priors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients (d, K) and intercepts (K,) of a linear discriminant.

    within: (d, d), within-class covariance; means: (K, d); priors: (K,).

    For generalized eigenvectors V with V' within V = I, V V' is the inverse of `within`. A
    Cholesky factor therefore replaces the eigenproblem that the public code solves.
    """
    try:
        factor = linalg.cho_factor(within, check_finite=False)
    except linalg.LinAlgError:
        raise UndefinedMeasure("no class varies within itself") from None
    coefficients = linalg.cho_solve(factor, means.T, check_finite=False)
    return coefficients, np.log(priors) - np.einsum("kd,dk->k", means, coefficients) / 2


def discriminant_probabilities(scores: np.ndarray) -> np.ndarray:
    """Replace each row of scores (n, K) by its softmax, in place, and return the array."""
    scores -= scores.max(1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(1, keepdims=True)
    return scores


def largest_eigenvalue(matrix: np.ndarray) -> float:
    """Return an estimate of a symmetric matrix's largest eigenvalue, as the public SFDA does.

    It takes three double steps of the power method, starting from the row sums.
    """
    x = matrix.sum(1)
    for _ in range(3):
        y = matrix @ x
        y /= np.linalg.norm(y)
        x = matrix @ y
        x /= np.linalg.norm(x)
    return x @ matrix @ y


def nuclear_norm(matrix: np.ndarray) -> float:
    """Return the sum of the singular values.

    A tall matrix's come from its Gram matrix, with an error of about 1e-8.
    """
    if len(matrix) < 3 * matrix.shape[1]:
        return np.linalg.svd(matrix, compute_uv=False).sum()
    return np.sqrt(np.maximum(np.linalg.eigvalsh(matrix.T @ matrix), 0)).sum()


@measure("SFDA, Shao et al. 2022", ROWS, higher_is_better=True)
def sfda(task: Task) -> float:
    """Mean probability of the true class by the second of two linear discriminants, in [0, 1].

    The first discriminant gives each image x a confidence p: the softmax of its class
    probabilities, taken at its own class. ConfMix replaces x by
    p x + (1 - p) (mean of the other classes' means), and the second discriminant is fitted to
    these. Both shrink the within-class covariance by exp(-5 lambda_max), where lambda_max is the
    first covariance's largest eigenvalue.

    It takes three passes: the statistics, those of ConfMix, and the second's probabilities.
    """
    s = task.statistics
    check_two_classes(s)
    classes, counts = len(s.present), s.counts[s.present]
    position = np.full(len(s.counts), -1)  # of a class among the present ones
    position[s.present] = np.arange(classes)
    priors, means = counts / s.n, s.class_means
    within = (s.scatter - s.between) / s.n
    shrinkage = max(np.exp(-5 * largest_eigenvalue(within)), 1e-10)
    first, intercepts = linear_discriminant(shrink_covariance(within, shrinkage), means, priors)
    others = (means.sum(0) - means) / (classes - 1)

    confidence = np.empty(task.n)
    sums, moment, start = np.zeros(means.shape), np.zeros(within.shape), 0
    for block, block_labels in task.blocks():
        rows, labels = block - s.mean.astype(block.dtype), position[block_labels]
        probabilities = discriminant_probabilities(rows @ first.astype(rows.dtype) + intercepts)
        np.exp(probabilities, out=probabilities)  # SFDA takes the softmax a second time
        p = probabilities[np.arange(len(rows)), labels] / probabilities.sum(1)
        confidence[start : start + len(rows)] = p
        start += len(rows)
        rows *= p[:, None].astype(rows.dtype)
        mixed_in = others[labels]
        mixed_in *= (1 - p)[:, None]
        rows += mixed_in
        add_outer_products(moment, rows)
        sums += one_hot(labels, classes) @ rows
    moment = symmetrize(moment)
    mixed = sums / counts[:, None]
    within = (moment - (mixed * counts[:, None]).T @ mixed) / s.n
    second, intercepts = linear_discriminant(shrink_covariance(within, shrinkage), mixed, priors)

    other_scores, total, start = others @ second, 0.0, 0
    for block, block_labels in task.blocks():
        rows, labels = block - s.mean.astype(block.dtype), position[block_labels]
        p = confidence[start : start + len(rows), None]
        start += len(rows)
        scores = rows @ second.astype(rows.dtype) * p + other_scores[labels] * (1 - p)
        total += discriminant_probabilities(scores + intercepts)[np.arange(len(rows)), labels].sum()
    return total / s.n


@measure("NCTI, Wang et al. 2023", MATRIX, higher_is_better=True)
def ncti(task: Task) -> MeasureResult:
    """ncc + seli - vc of a shrinkage discriminant after a PCA to 64 dimensions.

    The three terms are the variants. seli is the nuclear norm of the centred discriminant
    features, ncc the mean probability of the true class, and vc the log of the sum over classes
    of the nuclear norms of their images' probabilities. The paper scales each term to [0, 1] over
    the models that it compares before it adds them; `analysis.measure_tables` does so for a
    dataset with several models. The value here is the plain sum.

    The PCA has min(64, d, N - 1) components and, unlike that of the public code, is deterministic.
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

    # The features are the scores of the leading generalized eigenvectors; their Gram matrix
    # follows from the PCA's eigenvalues.
    between = shrink_covariance(np.diag(values) / s.n, shrinkage) - inner
    features = min(len(counts) - 1, kept)
    leading = linalg.eigh(between, inner, subset_by_index=[kept - features, kept - 1])[1]
    gram = (leading.T * values) @ leading
    seli = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0)).sum()

    center, true_class, nuclear, start = s.mean @ axes, 0.0, 0.0, 0
    projections, labels = zip(
        *((block @ axes - center, labels) for block, labels in task.blocks()), strict=True
    )
    projected, order = (
        np.concatenate(projections),
        np.argsort(np.concatenate(labels), kind="stable"),
    )
    for i, count in enumerate(counts):
        rows = projected[order[start : start + count]]
        start += count
        probabilities = discriminant_probabilities(rows @ coefficients + intercepts)
        true_class += probabilities[:, i].sum()
        nuclear += nuclear_norm(probabilities)
    terms = {"seli": seli, "ncc": true_class / s.n, "vc": np.log(nuclear)}
    return MeasureResult(terms["ncc"] + terms["seli"] - terms["vc"], terms)
