"""Transfer scores from class statistics: TransRate, H-score, GBC, EMMS and LogME.

They need the images' scatter and the classes' means or variances; only TransRate needs the images
themselves, class by class. K is the number of classes that have an image; others are left out.
"""

import numpy as np
from scipy import linalg
from scipy.linalg import blas, lapack

from foretune.measures.class_statistics import SCATTER, VARIANCES, ClassStatistics
from foretune.measures.registry import MATRIX, MeasureResult, UndefinedMeasure, measure
from foretune.measures.task import Task

EPS = np.finfo(float).eps


def whiten(matrix: np.ndarray, columns: np.ndarray, n: int) -> np.ndarray:
    """Return a Y with Y'Y = columns' A^+ columns, for a symmetric positive semidefinite A.

    matrix: A, (d, d); columns: (d, k); n: number of images that A was summed over.

    It uses a Cholesky factor if A is well-conditioned, and otherwise the eigenvectors. Those with
    an eigenvalue below max(n, d) eps of the largest are left out, because they are rounding
    errors.
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
    """Return logdet(I + inner); only the upper triangle is read, and `inner` is overwritten."""
    inner.flat[:: len(inner) + 1] += 1
    upper, _ = lapack.dpotrf(inner, clean=False, overwrite_a=True)
    return 2 * np.log(np.diag(upper)).sum()


@measure("TransRate, Huang et al. 2022", MATRIX, higher_is_better=True)
def transrate(task: Task) -> MeasureResult:
    """R(Z) - (1/K) sum_c R(Z_c) of the centred Z, R(Z) = 1/2 logdet(I + Z'Z / (n eps)).

    eps = 1e-4; in nats. The variant `weighted` weights a class by its share of the images, as a
    conditional entropy does; the public code gives all classes the same weight.
    """
    s, eps, rates = task.statistics, 1e-4, []
    counts = s.counts[s.present]
    for rows in task.class_blocks():
        rows -= s.mean
        # Z'Z and ZZ' have the same determinant here: take the smaller, and one triangle of it.
        inner = blas.dsyrk(1 / (len(rows) * eps), rows.T, trans=len(rows) < rows.shape[1])
        rates.append(log_determinant(inner) / 2)
    whole, by_class = log_determinant(s.scatter.T / (s.n * eps)) / 2, np.array(rates)
    return MeasureResult(whole - by_class.mean(), {"weighted": whole - by_class @ counts / s.n})


def note_few_images(s: ClassStatistics, consequence: str) -> list[str]:
    """Return a note with the consequence of fewer images than dimensions, or no note."""
    width = s.texts.shape[1]
    return [f"{s.n} images in {width} dimensions: {consequence}"] if s.n <= width + 1 else []


@measure("H-score, Bao et al. 2019", SCATTER, higher_is_better=True)
def h_score(s: ClassStatistics) -> MeasureResult:
    """tr(cov(X)^+ cov(E[X | y])), between 0 and K - 1."""
    if not np.trace(s.scatter) > EPS * s.n:
        raise UndefinedMeasure("all images are the same")
    means = s.class_means * np.sqrt(s.counts[s.present, None])
    value = (whiten(s.scatter, means.T, s.n) ** 2).sum()
    return MeasureResult(value, notes=note_few_images(s, "the value is K - 1 for any labels"))


def fit_class_gaussians(s: ClassStatistics) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the classes' means (K, d) and variances (K, d), and the corrected variance floor."""
    if len(s.present) < 2:
        raise UndefinedMeasure("one class overlaps with no other")
    floor = 1e-4 * s.variance
    if not floor > EPS**2:
        raise UndefinedMeasure("all images are the same")
    return s.class_means, s.class_variances, floor


def overlap_score(distance: np.ndarray) -> float:
    """Return -log of the sum of exp(-distance) over ordered pairs.

    distance: one value per unordered pair.
    """
    nearest = distance.min()
    return nearest - np.log(2 * np.exp(nearest - distance).sum())


@measure("GBC, spherical, Pandy et al. 2022", VARIANCES, higher_is_better=True)
def gbc_spherical(s: ClassStatistics) -> MeasureResult:
    """-log(-GBC) with GBC = -sum over pairs a != b of exp(-Bhattacharyya distance), in nats.

    As in the public code, the logarithmic term of the distance counts once, and variances are at
    least 1e-4. The variant `corrected` counts that term d times, which is the distance of
    spherical Gaussians, and its floor is 1e-4 of the images' mean variance, independent of d.
    """
    means, variances_by_dimension, floor = fit_class_gaussians(s)
    squares = np.vecdot(means, means)
    pair = np.tri(len(means), k=-1, dtype=bool)
    apart = np.maximum((squares[:, None] + squares - 2 * means @ means.T)[pair], 0)

    def score(variances: np.ndarray, times: int) -> float:
        middle = np.add.outer(variances, variances)[pair] / 2
        logs = np.log(variances) / 2
        log_term = np.log(middle) - np.add.outer(logs, logs)[pair]
        return overlap_score(apart / (8 * middle) + times * log_term / 2)

    public = np.maximum(variances_by_dimension, 1e-4).mean(1)
    corrected = np.maximum(variances_by_dimension.mean(1), floor)
    return MeasureResult(score(public, 1), {"corrected": score(corrected, means.shape[1])})


@measure("GBC, diagonal, Pandy et al. 2022", VARIANCES, higher_is_better=True)
def gbc_diagonal(s: ClassStatistics) -> MeasureResult:
    """Like gbc_spherical, for Gaussians with one variance per dimension.

    The variant `corrected` differs only in its floor: the public code's logarithms are correct.
    """
    means, variances_by_dimension, floor = fit_class_gaussians(s)

    def score(variances: np.ndarray) -> float:
        halves, distances = np.log(variances).sum(1) / 2, []
        for i in range(len(means) - 1):
            middle = (variances[i + 1 :] + variances[i]) / 2
            away = ((means[i + 1 :] - means[i]) ** 2 / middle).sum(1)
            log_terms = (np.log(middle).sum(1) - halves[i + 1 :] - halves[i]) / 2
            distances.append(away / 8 + log_terms)
        return overlap_score(np.concatenate(distances))

    public = np.maximum(variances_by_dimension, 1e-4)
    corrected = np.maximum(variances_by_dimension, floor)
    return MeasureResult(score(public), {"corrected": score(corrected)})


def sparsemax(z: np.ndarray) -> np.ndarray:
    """Return the point of the simplex nearest to z (Martins and Astudillo 2016)."""
    ordered = np.sort(z)[::-1]
    over = (np.cumsum(ordered) - 1) / np.arange(1, len(z) + 1)
    return np.maximum(z - over[ordered > over][-1], 0)


def standardize_labels(s: ClassStatistics) -> list[np.ndarray]:
    """Return the label embeddings (K, D), with mean 0 and variance 1 over the images."""
    counts = s.counts[s.present]
    shapes = {np.shape(embeddings) for embeddings in s.label_embeddings}
    if len(shapes) > 1 or {rows for rows, _ in shapes} != {len(s.texts)}:
        raise UndefinedMeasure(f"the labels' embeddings have different shapes: {sorted(shapes)}")
    labels = []
    for embeddings in s.label_embeddings:
        present = np.asarray(embeddings, float)[s.present]
        centred = present - counts @ present / s.n
        deviation = np.sqrt(counts @ centred**2 / s.n)
        labels.append(centred / (deviation + 1e-8))
    return labels


@measure("EMMS, Shao et al. 2024", SCATTER, higher_is_better=True)
def emms(s: ClassStatistics) -> MeasureResult:
    """Minus the residual of the regression of the labels' embeddings on the images.

    The labels' embeddings come from several models (`ClassStatistics.label_embeddings`), weighted
    by the sparsemax of the weights that fit the regression best. As in the public code, the
    residual is divided by N and multiplied by the width D of the labels' embeddings; the variant
    `per_element` divides by both.

    Labels repeat within a class, so the regression needs only (K, D) matrices and the images'
    class sums, and solves one (d, d) system.
    """
    labels = standardize_labels(s)
    counts = s.counts[s.present]
    scale = np.sqrt(np.diag(s.scatter) / s.n)
    varies = scale > 1e-10
    if not varies.any():
        raise UndefinedMeasure("all images are the same")
    scale = scale[varies] + 1e-8
    sums = s.class_means[:, varies] * counts[:, None] / scale
    moment = s.scatter[np.ix_(varies, varies)] / np.outer(scale, scale)
    fit = whiten(moment, sums.T, s.n)
    hat = fit.T @ fit  # (K, K): class sums' S_k' A^+ S_l

    average = sum(labels) / len(labels)
    fitted = hat @ average
    weighted = [embeddings * counts[:, None] for embeddings in labels]
    gram = np.array([[np.vdot(a, b) for b in labels] for a in weighted])
    products = np.array([np.vdot(embeddings, fitted) for embeddings in labels])
    weights = sparsemax(np.linalg.lstsq(gram, products)[0])
    target = np.tensordot(weights, np.stack(labels), 1)
    residual = np.vdot(average, fitted) - 2 * np.vdot(target, fitted) + weights @ gram @ weights
    residual, width = max(residual, 0.0) / s.n, labels[0].shape[1]
    notes = note_few_images(s, "the regression fits any labels, and the score is noise")
    return MeasureResult(-residual * width, {"per_element": -residual / width}, notes)


@measure("LogME, You et al. 2021", SCATTER, higher_is_better=True)
def logme(s: ClassStatistics) -> MeasureResult:
    """Mean over classes of the log evidence per image of a linear model of the class indicator.

    As in the public code, alpha and beta result from at most 11 fixed-point steps, which end once
    alpha / beta changes by less than 1%. Classes without images are left out of the mean.
    """
    if len(s.present) < 2:
        raise UndefinedMeasure("a single class cannot be told from others")
    n, width = s.n, s.texts.shape[1]
    values, vectors = np.linalg.eigh(s.scatter + n * np.outer(s.mean, s.mean))
    values = np.maximum(values, 0)[:, None]
    onto = vectors.T @ s.class_sums[s.present].T  # (d, K)
    counts = s.counts[s.present].astype(float)
    alpha, beta, ratio = (np.ones(len(counts)) for _ in range(3))
    running = np.ones(len(counts), bool)  # classes whose steps have not ended
    squares, errors = np.empty(len(counts)), np.empty(len(counts))
    for _ in range(11):
        k = np.flatnonzero(running)
        gamma = (values / (values + ratio[k])).sum(0)
        weights = onto[:, k] * (beta[k] / (alpha[k] + beta[k] * values))
        squares[k] = (weights**2).sum(0)
        # |y - X m|^2 from the moments; it cancels to 0 for a perfect fit.
        errors[k] = counts[k] + (weights * (values * weights - 2 * onto[:, k])).sum(0)
        errors[k] = np.maximum(errors[k], n * EPS)
        alpha[k] = gamma / np.maximum(squares[k], EPS**2)
        beta[k] = np.maximum(n - gamma, EPS) / errors[k]
        change = np.abs(alpha[k] / beta[k] - ratio[k]) / ratio[k]
        running[k] = change >= 0.01
        ratio[k] = np.where(running[k], alpha[k] / beta[k], ratio[k])
        if not running.any():
            break
    evidence = (
        width / 2 * np.log(alpha) + n / 2 * np.log(beta)
        - np.log(alpha + beta * values).sum(0) / 2
        - beta / 2 * errors - alpha / 2 * squares - n / 2 * np.log(2 * np.pi)
    ) / n  # fmt: skip
    return MeasureResult(evidence.mean(), notes=note_few_images(s, "the model fits any labels"))
