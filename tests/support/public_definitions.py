"""The measures as their authors' public code defines them, written plainly and apart from ours.

The tests compare with these and the benchmark times them. They do what the public code does in
the way that it does it (pairs by a product of all with all, one eigenproblem a discriminant, one
Gaussian at a time), but leave their inputs alone.
"""

import numpy as np
from scipy import linalg, special
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis


def iimm(images, texts, labels, batch=10_000):
    """Inter-modal and intra-image means by forming every product, in batches of rows."""
    cross = texts @ images.T
    cross[labels, np.arange(len(images))] = np.nan
    inter = np.nanmean(cross, axis=0).mean()
    total, pairs = 0.0, 0
    for i in range(0, len(images), batch):
        part = images[i : i + batch]
        own = part @ part.T
        own = own[np.tril_indices(len(part), k=-1)]
        total, pairs = total + own.sum(), pairs + len(own)
        for j in range(i + batch, len(images), batch):
            other = part @ images[j : j + batch].T
            total, pairs = total + other.sum(), pairs + other.size
    return (inter + total / pairs) / 2


def coding_rate(z, eps=1e-4):
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
    """GBC itself, not its logarithm. times_d: the spherical distance as it should be."""
    classes = np.unique(labels)
    means = {c: images[labels == c].mean(0) for c in classes}
    variances = {c: np.maximum(images[labels == c].var(0), floor) for c in classes}
    if kind == "spherical":
        variances = {c: each.mean() for c, each in variances.items()}
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
    """sources: arrays (C, D). As the public code divides: by N, then times D."""
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
    """Probabilities by the shrunk Fisher discriminant, and its shrinkage."""

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
    """labels: all of 0..C-1 present."""
    first, shrinkage = fisher(images, labels)
    sure = special.softmax(first, axis=1)[np.arange(len(labels)), labels][:, None]
    means = np.stack([images[labels == c].mean(0) for c in range(labels.max() + 1)])
    others = (means.sum(0) - means) / (len(means) - 1)
    mixed = sure * images + (1 - sure) * others[labels]
    second, _ = fisher(mixed, labels, shrinkage)
    return second[np.arange(len(labels)), labels].mean()


def ncti(images, labels, components=64, solver="auto"):
    """seli, ncc and vc. labels: all of 0..C-1 present. solver: "auto" is random at some sizes."""
    pca = PCA(components, svd_solver=solver)
    x = pca.fit_transform(images)
    shrinkage = max(np.exp(-pca.explained_variance_[:32].sum()), 1e-10)
    model = LinearDiscriminantAnalysis(solver="eigen", shrinkage=float(shrinkage))
    features = model.fit_transform(x, labels)
    seli = np.linalg.norm(features - features.mean(0), ord="nuc")
    likely = model.predict_proba(x)
    ncc = likely[np.arange(len(x)), labels].mean()
    nuclear = sum(np.linalg.norm(likely[labels == c], ord="nuc") for c in range(labels.max() + 1))
    return seli, ncc, np.log(nuclear)


def logme(images, labels):
    n, d = images.shape
    vectors, values, _ = np.linalg.svd(images.T @ images)
    found = []
    for c in range(labels.max() + 1):
        y = (labels == c).astype(float)
        onto = vectors.T @ (images.T @ y)
        alpha = beta = ratio = 1.0
        for _ in range(11):
            gamma = (values / (values + ratio)).sum()
            m = vectors @ (onto * beta / (alpha + beta * values))
            squares, errors = (m * m).sum(), ((y - images @ m) ** 2).sum()
            alpha, beta = gamma / squares, (n - gamma) / errors
            if abs(alpha / beta - ratio) / ratio < 0.01:
                break
            ratio = alpha / beta
        evidence = d / 2 * np.log(alpha) + n / 2 * np.log(beta)
        evidence -= np.log(alpha + beta * values).sum() / 2
        evidence -= beta / 2 * errors + alpha / 2 * squares + n / 2 * np.log(2 * np.pi)
        found.append(evidence / n)
    return np.mean(found)


def density_entropy(points):
    """-mean log density by an isotropic Gaussian kernel with Scott's bandwidth."""
    n, d = points.shape
    variance = points.var(0).mean() * n ** (-2 / (d + 4))
    apart = ((points[:, None] - points[None]) ** 2).sum(2)
    kernel = np.exp(-apart / (2 * variance)) / (2 * np.pi * variance) ** (d / 2)
    return -np.log(kernel.mean(1)).mean()
