"""The measures as their authors' public code defines them, written plainly and apart from ours.

The tests compare our measures with these, and a benchmark times them. They compute in the way of
the public code (pairs as a product of all with all, one eigenproblem per discriminant, one Gaussian
at a time), but do not change their inputs.

Shapes: images (N, D), texts (C, D), labels (N,).
"""

import numpy as np
from scipy import linalg, special
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis


def iimm(images, texts, labels, batch=10_000):
    """Return IIMM, the mean of the inter-modal and intra-image means, from all products of rows."""
    cross = texts @ images.T
    cross[labels, np.arange(len(images))] = np.nan
    inter = np.nanmean(cross, axis=0).mean()
    total, pairs = 0.0, 0
    for i in range(0, len(images), batch):
        part = images[i : i + batch]
        within = part @ part.T
        within = within[np.tril_indices(len(part), k=-1)]
        total, pairs = total + within.sum(), pairs + len(within)
        for j in range(i + batch, len(images), batch):
            across = part @ images[j : j + batch].T
            total, pairs = total + across.sum(), pairs + across.size
    return (inter + total / pairs) / 2


def coding_rate(z, eps=1e-4):
    """Return the coding rate of the rows z (N, D), as TransRate defines it."""
    n, d = z.shape
    return np.linalg.slogdet(np.eye(d) + z.T @ z / (n * eps))[1] / 2


def transrate(images, labels):
    z = images - images.mean(0)
    rates = [coding_rate(z[labels == c]) for c in range(labels.max() + 1)]
    return coding_rate(z) - np.mean(rates)


def h_score(images, labels):
    def covariance(x):
        x = x - x.mean(0)
        return x.T @ x / (len(x) - 1)

    expected = np.empty_like(images)
    for c in np.unique(labels):
        expected[labels == c] = images[labels == c].mean(0)
    return np.trace(np.linalg.pinv(covariance(images), rcond=1e-15) @ covariance(expected))


def gbc(images, labels, kind, floor=1e-4, times_d=False):
    """Return GBC itself, not its logarithm.

    times_d: multiply the shape term by D, which the public spherical code leaves out.
    """
    classes = np.unique(labels)
    means = {c: images[labels == c].mean(0) for c in classes}
    variances = {c: np.maximum(images[labels == c].var(0), floor) for c in classes}
    if kind == "spherical":
        variances = {c: variance.mean() for c, variance in variances.items()}
    total = 0.0
    for a in classes:
        for b in classes:
            if a != b:
                middle = (variances[a] + variances[b]) / 2
                far = ((means[a] - means[b]) ** 2 / middle).sum() / 8
                shape = np.log(middle).sum()
                shape -= (np.log(variances[a]).sum() + np.log(variances[b]).sum()) / 2
                total += np.exp(-far - shape / 2 * (images.shape[1] if times_d else 1))
    return -total


def sparsemax(z):
    ordered = np.sort(z)[::-1]
    sums = np.cumsum(ordered)
    k = np.flatnonzero(1 + np.arange(1, len(z) + 1) * ordered > sums)[-1] + 1
    return np.maximum(0, z - (sums[k - 1] - 1) / k)


def emms(images, labels, sources):
    """Return EMMS; sources: list of label vectors (C, width).

    The public code divides the sum of squares by N and then multiplies it by the width.
    """
    y = np.stack([source[labels] for source in sources], axis=2)
    n, width, k = y.shape
    for i in range(k):
        y[:, :, i] = (y[:, :, i] - y[:, :, i].mean(0)) / (y[:, :, i].std(0) + 1e-8)
    x = (images - images.mean(0)) / (images.std(0) + 1e-8)
    w = np.linalg.lstsq(x, y @ np.full(k, 1 / k), rcond=None)[0]
    weights = np.linalg.lstsq(y.reshape(n * width, k), (x @ w).reshape(-1), rcond=None)[0]
    return -np.sum((x @ w - y @ sparsemax(weights)) ** 2) / n * width


def power_method(matrix):
    x = matrix.sum(axis=1)
    for _ in range(3):
        y = matrix @ x
        y = y / np.linalg.norm(y)
        x = matrix @ y
        x = x / np.linalg.norm(x)
    return x @ matrix @ y


def fisher(x, y, shrinkage=None):
    """Return the probabilities of the shrunk Fisher discriminant, and its shrinkage."""

    def shrink(covariance, by):
        d = len(covariance)
        return (1 - by) * covariance + by * np.trace(covariance) / d * np.eye(d)

    classes, y = np.unique(y, return_inverse=True)
    priors = np.bincount(y) / len(y)
    means = np.stack([x[y == c].mean(0) for c in range(len(classes))])
    within = sum(priors[c] * np.cov(x[y == c].T, bias=True) for c in range(len(classes)))
    if shrinkage is None:
        shrinkage = max(np.exp(-5 * power_method(within)), 1e-10)
    total, within = shrink(np.cov(x.T, bias=True), shrinkage), shrink(within, shrinkage)
    values, vectors = linalg.eigh(total - within, within)
    vectors = vectors[:, np.argsort(values)[::-1]]
    coefficients = means @ vectors @ vectors.T
    intercepts = -0.5 * np.diag(means @ coefficients.T) + np.log(priors)
    return special.softmax(x @ coefficients.T + intercepts, axis=1), shrinkage


def sfda(images, labels):
    """Return SFDA; every label of 0..C-1 must occur."""
    first, shrinkage = fisher(images, labels)
    confidence = special.softmax(first, axis=1)[np.arange(len(labels)), labels][:, None]
    means = np.stack([images[labels == c].mean(0) for c in range(labels.max() + 1)])
    others = (means.sum(0) - means) / (len(means) - 1)
    mixed = confidence * images + (1 - confidence) * others[labels]
    second, _ = fisher(mixed, labels, shrinkage)
    return second[np.arange(len(labels)), labels].mean()


def ncti(images, labels, components=64, solver="auto"):
    """Return the parts seli, ncc and vc of NCTI; every label of 0..C-1 must occur.

    solver: of the PCA; "auto" is random for some sizes.
    """
    pca = PCA(components, svd_solver=solver)
    x = pca.fit_transform(images)
    shrinkage = max(np.exp(-pca.explained_variance_[:32].sum()), 1e-10)
    model = LinearDiscriminantAnalysis(solver="eigen", shrinkage=float(shrinkage))
    features = model.fit_transform(x, labels)
    seli = np.linalg.norm(features - features.mean(0), ord="nuc")
    probabilities = model.predict_proba(x)
    ncc = probabilities[np.arange(len(x)), labels].mean()
    nuclear = sum(
        np.linalg.norm(probabilities[labels == c], ord="nuc") for c in range(labels.max() + 1)
    )
    return seli, ncc, np.log(nuclear)


def logme(images, labels):
    n, d = images.shape
    vectors, values, _ = np.linalg.svd(images.T @ images)
    evidences = []
    for c in range(labels.max() + 1):
        y = (labels == c).astype(float)
        projected = vectors.T @ (images.T @ y)
        alpha = beta = ratio = 1.0
        for _ in range(11):
            gamma = (values / (values + ratio)).sum()
            m = vectors @ (projected * beta / (alpha + beta * values))
            squares, errors = (m * m).sum(), ((y - images @ m) ** 2).sum()
            alpha, beta = gamma / squares, (n - gamma) / errors
            if abs(alpha / beta - ratio) / ratio < 0.01:
                break
            ratio = alpha / beta
        evidence = d / 2 * np.log(alpha) + n / 2 * np.log(beta)
        evidence -= np.log(alpha + beta * values).sum() / 2
        evidence -= beta / 2 * errors + alpha / 2 * squares + n / 2 * np.log(2 * np.pi)
        evidences.append(evidence / n)
    return np.mean(evidences)


def density_entropy(points):
    """Return the mean of -log density, by an isotropic Gaussian kernel with Scott's bandwidth."""
    n, d = points.shape
    variance = points.var(0).mean() * n ** (-2 / (d + 4))
    squared_distances = ((points[:, None] - points[None]) ** 2).sum(2)
    kernel = np.exp(-squared_distances / (2 * variance)) / (2 * np.pi * variance) ** (d / 2)
    return -np.log(kernel.mean(1)).mean()
