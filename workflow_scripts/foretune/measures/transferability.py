"""Transfer scores from class statistics: TransRate, H-score, GBC, EMMS and LogME.

Each needs the images' scatter and the classes' means or variances; TransRate alone looks at the
images class by class. K is the number of classes that have an image; the others are left out.
"""

import numpy as np
from scipy import linalg
from scipy.linalg import blas, lapack

from foretune.measures.class_statistics import SCATTER, VARIANCES, ClassStatistics
from foretune.measures.registry import MATRIX, MeasureResult, UndefinedMeasure, measure
from foretune.measures.task import Task

EPS = np.finfo(float).eps


def whiten(matrix: np.ndarray, columns: np.ndarray, n: int) -> np.ndarray:
    """A Y with Y'Y = columns' A^+ columns, for a symmetric positive semidefinite A.

    By Cholesky where A is well-conditioned; else by its eigenvectors, without those whose
    eigenvalues are below max(n, d) eps of the largest, which rounding made.
    """
    cut = max(n, len(matrix)) * EPS
    try:
        lower = linalg.cholesky(matrix, lower=True, check_finite=False)
        diagonal = np.diag(lower)
        if diagonal.min() ** 2 > cut * diagonal.max() ** 2:
            return linalg.solve_triangular(lower, columns, lower=True, check_finite=False)
    except linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(matrix)
    kept = values > cut * values[-1]
    return vectors[:, kept].T @ columns / np.sqrt(values[kept, None])


def log_determinant(inner: np.ndarray) -> float:
    """logdet(I + inner) of a matrix of which the upper triangle is read, and written over."""
    inner.flat[:: len(inner) + 1] += 1
    upper, _ = lapack.dpotrf(inner, clean=False, overwrite_a=True)
    return 2 * np.log(np.diag(upper)).sum()


@measure("TransRate, Huang et al. 2022", MATRIX, higher_is_better=True)
def transrate(task: Task) -> MeasureResult:
    """R(Z) - (1/K) sum_c R(Z_c) of the centred Z, R(Z) = 1/2 logdet(I + Z'Z / (n eps)).

    eps = 1e-4; in nats. The variant `weighted` weighs a class by its share of the images, as a
    conditional entropy does, where the public code weighs all the same.
    """
    s, eps, rates = task.statistics, 1e-4, []
    counts = s.counts[s.present]
    for part in task.by_class():
        part -= s.mean
        # Z'Z and ZZ' give the same: the smaller is taken, and half of it.
        inner = blas.dsyrk(1 / (len(part) * eps), part.T, trans=len(part) < part.shape[1])
        rates.append(log_determinant(inner) / 2)
    whole, rates = log_determinant(s.scatter.T / (s.n * eps)) / 2, np.array(rates)
    return MeasureResult(whole - rates.mean(), {"weighted": whole - rates @ counts / s.n})


def note_few_images(s: ClassStatistics, says: str) -> list[str]:
    width = s.texts.shape[1]
    return [f"{s.n} images in {width} dimensions: {says}"] if s.n <= width + 1 else []


@measure("H-score, Bao et al. 2019", SCATTER, higher_is_better=True)
def h_score(s: ClassStatistics) -> MeasureResult:
    """tr(cov(X)^+ cov(E[X | y])), between 0 and K - 1."""
    if not np.trace(s.scatter) > EPS * s.n:
        raise UndefinedMeasure("all images are the same")
    means = s.class_means * np.sqrt(s.counts[s.present, None])
    value = (whiten(s.scatter, means.T, s.n) ** 2).sum()
    return MeasureResult(value, notes=note_few_images(s, "this is K - 1 whatever the labels are"))


def fit_class_gaussians(s: ClassStatistics) -> tuple[np.ndarray, np.ndarray, float]:
    """Means (K, d), variances (K, d) of the classes, and the least variance taken for real."""
    if len(s.present) < 2:
        raise UndefinedMeasure("one class overlaps with no other")
    least = 1e-4 * s.variance
    if not least > EPS**2:
        raise UndefinedMeasure("all images are the same")
    return s.class_means, s.class_variances, least


def overlap_score(distance: np.ndarray) -> float:
    """-log of the sum of exp(-distance) over ordered pairs, each given once in `distance`."""
    least = distance.min()
    return least - np.log(2 * np.exp(least - distance).sum())


@measure("GBC, spherical, Pandy et al. 2022", VARIANCES, higher_is_better=True)
def gbc_spherical(s: ClassStatistics) -> MeasureResult:
    """-log(-GBC), GBC = -sum over pairs a != b of exp(-Bhattacharyya distance); ours is in nats.

    As in the public code, the logarithmic term counts once, and variances are at least 1e-4.
    The variant `corrected` counts it d times, as the distance of spherical Gaussians has it, and
    floors at 1e-4 of the images' mean variance, which does not depend on d.
    """
    means, by_dimension, least = fit_class_gaussians(s)
    squares = np.vecdot(means, means)
    pair = np.tri(len(means), k=-1, dtype=bool)
    apart = np.maximum((squares[:, None] + squares - 2 * means @ means.T)[pair], 0)

    def score(variances: np.ndarray, times: int) -> float:
        middle = np.add.outer(variances, variances)[pair] / 2
        logs = np.log(variances) / 2
        shape = np.log(middle) - np.add.outer(logs, logs)[pair]
        return overlap_score(apart / (8 * middle) + times * shape / 2)

    public = np.maximum(by_dimension, 1e-4).mean(1)
    corrected = np.maximum(by_dimension.mean(1), least)
    return MeasureResult(score(public, 1), {"corrected": score(corrected, means.shape[1])})


@measure("GBC, diagonal, Pandy et al. 2022", VARIANCES, higher_is_better=True)
def gbc_diagonal(s: ClassStatistics) -> MeasureResult:
    """As gbc_spherical, of Gaussians with a variance for each dimension.

    The variant `corrected` has the lower floor only: the public logarithms are right.
    """
    means, by_dimension, least = fit_class_gaussians(s)

    def score(variances: np.ndarray) -> float:
        halves, found = np.log(variances).sum(1) / 2, []
        for i in range(len(means) - 1):
            middle = (variances[i + 1 :] + variances[i]) / 2
            away = ((means[i + 1 :] - means[i]) ** 2 / middle).sum(1)
            found.append(away / 8 + (np.log(middle).sum(1) - halves[i + 1 :] - halves[i]) / 2)
        return overlap_score(np.concatenate(found))

    floored = np.maximum(by_dimension, 1e-4), np.maximum(by_dimension, least)
    return MeasureResult(score(floored[0]), {"corrected": score(floored[1])})


def sparsemax(z: np.ndarray) -> np.ndarray:
    """The nearest point of the simplex (Martins and Astudillo 2016)."""
    ordered = np.sort(z)[::-1]
    over = (np.cumsum(ordered) - 1) / np.arange(1, len(z) + 1)
    return np.maximum(z - over[ordered > over][-1], 0)


@measure("EMMS, Shao et al. 2024", SCATTER, higher_is_better=True)
def emms(s: ClassStatistics) -> MeasureResult:
    """Minus the residual of the images' regression on their labels' embeddings.

    The labels' embeddings come from several sources (`Statistics.sources`), weighted by the
    sparsemax of the weights that fit the regression best. As in the public code, the residual is
    divided by N and multiplied by the sources' width D; the variant `per_element` divides by both.

    Labels repeat within a class, so that (K, D) matrices and the images' class sums hold all of
    the regression; only a (d, d) system is solved.
    """
    counts = s.counts[s.present]
    shapes = {np.shape(source) for source in s.sources}
    if len(shapes) > 1 or {rows for rows, _ in shapes} != {len(s.texts)}:
        raise UndefinedMeasure(f"the labels' embeddings have different shapes: {sorted(shapes)}")
    labels = []
    for source in s.sources:
        embedded = np.asarray(source, float)[s.present]
        embedded = embedded - counts @ embedded / s.n
        deviation = np.sqrt(counts @ embedded**2 / s.n)
        labels.append(embedded / (deviation + 1e-8))
    scale = np.sqrt(np.diag(s.scatter) / s.n)
    live = scale > 1e-10
    if not live.any():
        raise UndefinedMeasure("all images are the same")
    scale = scale[live] + 1e-8
    sums = s.class_means[:, live] * counts[:, None] / scale
    moment = s.scatter[np.ix_(live, live)] / np.outer(scale, scale)
    fit = whiten(moment, sums.T, s.n)
    hat = fit.T @ fit  # (K, K): class sums' S_k' A^+ S_l

    start = sum(labels) / len(labels)
    fitted = hat @ start
    weighted = [each * counts[:, None] for each in labels]
    gram = np.array([[np.vdot(a, b) for b in labels] for a in weighted])
    weights = np.linalg.lstsq(gram, np.array([np.vdot(each, fitted) for each in labels]))[0]
    weights = sparsemax(weights)
    target = np.tensordot(weights, np.stack(labels), 1)
    residual = np.vdot(start, fitted) - 2 * np.vdot(target, fitted) + weights @ gram @ weights
    residual, width = max(residual, 0.0) / s.n, start.shape[1]
    notes = note_few_images(s, "the regression meets every label, and the score is noise")
    return MeasureResult(-residual * width, {"per_element": -residual / width}, notes)


@measure("LogME, You et al. 2021", SCATTER, higher_is_better=True)
def logme(s: ClassStatistics) -> MeasureResult:
    """Mean over classes of the log evidence per image of a linear model of its indicator.

    alpha and beta by at most 11 fixed-point steps, stopped at a change of alpha / beta below 1%,
    as in the public code; classes without images are left out of the mean.
    """
    if len(s.present) < 2:
        raise UndefinedMeasure("one class has nothing to tell it from")
    n, width = s.n, s.texts.shape[1]
    values, vectors = np.linalg.eigh(s.scatter + n * np.outer(s.mean, s.mean))
    values = np.maximum(values, 0)[:, None]
    onto = vectors.T @ s.class_sums[s.present].T  # (d, K)
    counts = s.counts[s.present].astype(float)
    alpha, beta, ratio = (np.ones(len(counts)) for _ in range(3))
    going = np.ones(len(counts), bool)
    squares, errors = np.empty(len(counts)), np.empty(len(counts))
    for _ in range(11):
        k = np.flatnonzero(going)
        gamma = (values / (values + ratio[k])).sum(0)
        weights = onto[:, k] * (beta[k] / (alpha[k] + beta[k] * values))
        squares[k] = (weights**2).sum(0)
        # |y - X m|^2 from the moments; what cancels is a perfect fit.
        errors[k] = counts[k] + (weights * (values * weights - 2 * onto[:, k])).sum(0)
        errors[k] = np.maximum(errors[k], n * EPS)
        alpha[k] = gamma / np.maximum(squares[k], EPS**2)
        beta[k] = np.maximum(n - gamma, EPS) / errors[k]
        change = np.abs(alpha[k] / beta[k] - ratio[k]) / ratio[k]
        going[k] = change >= 0.01
        ratio[k] = np.where(going[k], alpha[k] / beta[k], ratio[k])
        if not going.any():
            break
    evidence = (
        width / 2 * np.log(alpha) + n / 2 * np.log(beta)
        - np.log(alpha + beta * values).sum(0) / 2
        - beta / 2 * errors - alpha / 2 * squares - n / 2 * np.log(2 * np.pi)
    ) / n  # fmt: skip
    return MeasureResult(evidence.mean(), notes=note_few_images(s, "the model fits every label"))
