"""Lines and hinges through the datasets of a study, fitted by least squares.

Both take arrays whose last axis is the datasets, so that all measures and outcomes of a study are
fitted at once. tests/analysis/test_regression.py compares them with scipy and statsmodels.
"""

import numpy as np
from scipy import stats

LINE_COLUMNS = (
    "slope", "intercept", "r2", "p_slope", "slope_low", "slope_high", "residual_sd", "x_mean",
    "x_squares", "x_min", "x_max", "aicc_line",
)  # fmt: skip
HINGE_COLUMNS = (
    "hinge_threshold", "hinge_slope", "hinge_intercept", "hinge_r2", "hinge_above", "aicc_hinge",
    "aicc_difference",
)  # fmt: skip
LINE_PARAMETERS = 3  # intercept, slope and the variance of the residuals
HINGE_PARAMETERS = 4  # and the threshold
MIN_HINGE_POINTS = HINGE_PARAMETERS + 2  # with fewer, the hinge's AICc is infinite


def corrected_aic(residual_squares: np.ndarray, n: int, parameters: int) -> np.ndarray:
    """Return AICc (Hurvich and Tsai 1989), NaN if there are too few points for it.

    With twelve points, plain AIC prefers the hinge to a straight line too often. The variance
    counts as a parameter, as in Burnham and Anderson (2002), section 2.4.
    """
    if n <= parameters + 1:
        return np.full(np.shape(residual_squares), np.nan)
    log_likelihood = -n / 2 * (np.log(2 * np.pi * residual_squares / n) + 1)
    penalty = parameters + parameters * (parameters + 1) / (n - parameters - 1)
    return 2 * (penalty - log_likelihood)


def fit_line(
    x: np.ndarray, y: np.ndarray, parameters: int = LINE_PARAMETERS
) -> dict[str, np.ndarray]:
    """Fit the line y = intercept + slope x to n >= 3 points (..., n) whose x are not all equal.

    The 95% band of the mean at x is
    t(0.975, n - 2) residual_sd sqrt(1/n + (x - x_mean)^2 / x_squares);
    with 1 + 1/n instead of 1/n it is the prediction interval of one further dataset. For
    aicc_line and `parameters` see `corrected_aic`; it is NaN for fewer than 5 points.
    """
    n = x.shape[-1]
    x_mean, y_mean = x.mean(axis=-1), y.mean(axis=-1)
    centred, changes = x - x_mean[..., None], y - y_mean[..., None]
    x_squares, y_squares = (np.square(each).sum(axis=-1) for each in (centred, changes))
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (centred * changes).sum(axis=-1) / x_squares
        residual_squares = np.square(changes - slope[..., None] * centred).sum(axis=-1)
        error = np.sqrt(residual_squares / (n - 2) / x_squares)
        half = stats.t.ppf(0.975, n - 2) * error
        numbers = (
            slope, y_mean - slope * x_mean, 1 - residual_squares / y_squares,
            2 * stats.t.sf(np.abs(slope / error), n - 2), slope - half, slope + half,
            np.sqrt(residual_squares / (n - 2)), x_mean, x_squares, x.min(axis=-1), x.max(axis=-1),
            corrected_aic(residual_squares, n, parameters),
        )  # fmt: skip
    return dict(zip(LINE_COLUMNS, np.broadcast_arrays(*numbers), strict=True))


def list_thresholds(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """List where the least squares threshold of a hinge can lie (Hudson 1966, JASA 61).

    It lies at a value of x, or between two neighbouring values at the point where the line through
    the points on the left meets the mean of those on the right. At least two different x must lie
    at or below the threshold, to define a slope, and at least two points above it, because a
    single point is no plateau.
    """
    order = np.argsort(x)
    x, y, n = x[order], y[order], len(x)
    last = np.flatnonzero(np.diff(x))[1:]  # the last point at each value but the first
    last = last[last + 3 <= n]
    below = last + 1  # so many points lie at or below each value
    centred, changes = x - x.mean(), y - y.mean()
    sum_x, sum_y, sum_xx, sum_xy = (
        np.cumsum(each)[last] for each in (centred, changes, centred**2, centred * changes)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (below * sum_xy - sum_x * sum_y) / (below * sum_xx - sum_x**2)
        # The changes sum to 0, so that those on the right sum to -sum_y.
        meeting = (-sum_y / (n - below) - (sum_y - slope * sum_x) / below) / slope + x.mean()
    left, right = x[last], x[np.minimum(last + 1, n - 1)]
    return np.concatenate([left, meeting[(left < meeting) & (meeting < right)]])


def find_threshold(x: np.ndarray, y: np.ndarray) -> float:
    """Return the threshold of the hinge that fits n points best, NaN if there can be none."""
    thresholds = list_thresholds(x, y) if len(x) >= MIN_HINGE_POINTS else np.array([])
    if not len(thresholds):
        return np.nan
    bent = np.minimum(x, thresholds[:, None])
    bent -= bent.mean(axis=1, keepdims=True)
    explained = (bent @ (y - y.mean())) ** 2 / np.square(bent).sum(axis=1)
    return thresholds[explained.argmax()]


def fit_hinge(x: np.ndarray, y: np.ndarray, aicc_line: np.ndarray) -> dict[str, np.ndarray]:
    """Fit y = intercept + slope min(x, threshold) to points (..., n): flat above the threshold.

    The threshold is fitted by least squares, too, and counts as a parameter. aicc_difference is
    aicc_hinge - aicc_line, which is negative if the hinge fits better. All are NaN for fewer than
    6 points, or if no threshold has two points above it.
    """
    threshold = np.vectorize(find_threshold, signature="(n),(n)->()")(x, y)
    fit = fit_line(np.minimum(x, threshold[..., None]), y, HINGE_PARAMETERS)
    above = np.where(np.isnan(threshold), np.nan, (x > threshold[..., None]).sum(axis=-1))
    numbers = (
        threshold, fit["slope"], fit["intercept"], fit["r2"], above, fit["aicc_line"],
        fit["aicc_line"] - aicc_line,
    )  # fmt: skip
    return dict(zip(HINGE_COLUMNS, numbers, strict=True))
