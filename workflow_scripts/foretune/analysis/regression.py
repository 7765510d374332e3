"""Lines and hinges through the datasets of a study, fitted by statsmodels."""

import itertools

import numpy as np
from statsmodels.regression.linear_model import OLS, RegressionResults
from statsmodels.tools.eval_measures import aicc
from statsmodels.tools.tools import add_constant

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


def least_squares_line(x: np.ndarray, y: np.ndarray) -> RegressionResults:
    """Fit y on a constant and x by ordinary least squares; return statsmodels' results."""
    return OLS(y, add_constant(x, has_constant="add")).fit()


def corrected_aic(fit: RegressionResults, parameters: int) -> float:
    """Return AICc (Hurvich and Tsai 1989), NaN if there are too few points for it.

    With twelve points, plain AIC prefers the hinge to a straight line too often. The variance
    counts as a parameter, as in Burnham and Anderson (2002), section 2.4.
    """
    return aicc(fit.llf, fit.nobs, parameters) if fit.nobs > parameters + 1 else np.nan


def fit_line(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Fit the line y = intercept + slope x to n >= 3 points whose x are not all equal.

    The 95% band of the mean at x is
    t(0.975, n - 2) residual_sd sqrt(1/n + (x - x_mean)^2 / x_squares);
    with 1 + 1/n instead of 1/n it is the prediction interval of one further dataset. For
    aicc_line see `corrected_aic`; it is NaN for fewer than 5 points.
    """
    fit = least_squares_line(x, y)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = fit.conf_int()[1]
        numbers = (
            fit.params[1], fit.params[0], fit.rsquared, fit.pvalues[1], low, high,
            np.sqrt(fit.mse_resid), x.mean(), np.square(x - x.mean()).sum(), x.min(), x.max(),
            corrected_aic(fit, LINE_PARAMETERS),
        )  # fmt: skip
    return dict(zip(LINE_COLUMNS, map(float, numbers), strict=True))


def list_thresholds(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """List where the least squares threshold of a hinge can lie (Hudson 1966, JASA 61).

    It lies at a value of x, or between two neighbouring values at the point where the line through
    the points on the left meets the mean of those on the right. At least two different x must lie
    at or below the threshold, to define a slope, and at least two points above it, because a
    single point is no plateau.
    """
    values = np.unique(x)
    thresholds = []
    for left, right in itertools.pairwise(values[1:]):
        below = x <= left
        if (~below).sum() < 2:
            break
        thresholds.append(left)
        slope, intercept = np.polyfit(x[below], y[below], 1)
        meeting = (y[~below].mean() - intercept) / slope if slope else np.nan
        if left < meeting < right:
            thresholds.append(meeting)
    return np.array(thresholds)


def fit_hinge(x: np.ndarray, y: np.ndarray, aicc_line: float) -> dict[str, float]:
    """Fit y = intercept + slope min(x, threshold): linear up to the threshold, flat above it.

    The threshold is fitted by least squares, too, and counts as a parameter. aicc_difference is
    aicc_hinge - aicc_line, which is negative if the hinge fits better. All are NaN for fewer than
    6 points, or if no threshold has two points above it.
    """
    thresholds = list_thresholds(x, y) if len(x) >= MIN_HINGE_POINTS else np.array([])
    if not len(thresholds):
        return dict.fromkeys(HINGE_COLUMNS, np.nan)
    bent = np.minimum(x, thresholds[:, None])
    centred = bent - bent.mean(axis=1, keepdims=True)
    explained = (centred @ (y - y.mean())) ** 2 / np.square(centred).sum(axis=1)
    best = thresholds[explained.argmax()]
    fit = least_squares_line(np.minimum(x, best), y)
    aicc_hinge = corrected_aic(fit, HINGE_PARAMETERS)
    numbers = (
        best, fit.params[1], fit.params[0], fit.rsquared, (x > best).sum(), aicc_hinge,
        aicc_hinge - aicc_line,
    )  # fmt: skip
    return dict(zip(HINGE_COLUMNS, map(float, numbers), strict=True))
