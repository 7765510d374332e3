"""Lines, hinges and pooled lines through the datasets of a study, fitted by statsmodels."""

import itertools

import numpy as np
import pandas as pd
from statsmodels.regression.linear_model import OLS
from statsmodels.tools.tools import add_constant

LINE_COLUMNS = (
    "slope", "intercept", "r2", "p_slope", "slope_low", "slope_high", "residual_sd", "x_mean",
    "x_squares", "x_min", "x_max", "aic_line",
)  # fmt: skip
HINGE_COLUMNS = (
    "hinge_threshold", "hinge_slope", "hinge_intercept", "hinge_r2", "hinge_above", "aic_hinge",
    "aic_difference",
)  # fmt: skip
POOLED_COLUMNS = (
    "n", "models", "slope", "slope_low", "slope_high", "p_slope", "r2", "p_slopes_differ",
)  # fmt: skip
MIN_HINGE_POINTS = 5


def least_squares_line(x: np.ndarray, y: np.ndarray):
    """Fit y on a constant and x by ordinary least squares; return statsmodels' results."""
    return OLS(y, add_constant(x, has_constant="add")).fit()


def fit_line(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Fit the line y = intercept + slope x to n >= 3 points whose x are not all equal.

    The 95% band of the mean at x is
    t(0.975, n - 2) residual_sd sqrt(1/n + (x - x_mean)^2 / x_squares);
    with 1 + 1/n instead of 1/n it is the prediction interval of one further dataset. aic_line
    counts two coefficients.
    """
    fit = least_squares_line(x, y)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = fit.conf_int()[1]
        numbers = (
            fit.params[1], fit.params[0], fit.rsquared, fit.pvalues[1], low, high,
            np.sqrt(fit.mse_resid), x.mean(), np.square(x - x.mean()).sum(), x.min(), x.max(),
            fit.aic,
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


def fit_hinge(x: np.ndarray, y: np.ndarray, aic_line: float) -> dict[str, float]:
    """Fit y = intercept + slope min(x, threshold): linear up to the threshold, flat above it.

    The threshold is fitted by least squares, too. aic_hinge counts three coefficients;
    aic_difference is aic_hinge - aic_line, which is negative if the hinge fits better. All are NaN
    for fewer than 5 points, or if no threshold has two points above it.
    """
    thresholds = list_thresholds(x, y) if len(x) >= MIN_HINGE_POINTS else np.array([])
    if not len(thresholds):
        return dict.fromkeys(HINGE_COLUMNS, np.nan)
    bent = np.minimum(x, thresholds[:, None])
    centred = bent - bent.mean(axis=1, keepdims=True)
    explained = (centred @ (y - y.mean())) ** 2 / np.square(centred).sum(axis=1)
    best = thresholds[explained.argmax()]
    fit = least_squares_line(np.minimum(x, best), y)
    numbers = (
        best, fit.params[1], fit.params[0], fit.rsquared, (x > best).sum(), fit.aic + 2,
        fit.aic + 2 - aic_line,
    )  # fmt: skip
    return dict(zip(HINGE_COLUMNS, map(float, numbers), strict=True))


def fit_pooled(x: np.ndarray, y: np.ndarray, model: np.ndarray) -> dict[str, float]:
    """Fit one slope for all models and one intercept per model: y = intercept[model] + slope x.

    Points whose x or y is not finite are ignored. p_slopes_differ is the p-value of the F test
    against one slope per model. The statistics are NaN for one model, for constant y, for x that
    is constant within every model, and if there are no more points than coefficients.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    levels = pd.get_dummies(pd.Series(model[known]), dtype=float).to_numpy()  # (n, models)
    n, models = levels.shape
    row = dict.fromkeys(POOLED_COLUMNS, np.nan) | {"n": n, "models": models}
    within = x - levels @ (levels.T @ x / levels.sum(axis=0))
    flat = not n or np.ptp(y) == 0 or np.abs(within).max() <= 1e-12 * np.abs(x).max()
    if models < 2 or n <= models + 1 or flat:
        return row
    fit = OLS(y, np.column_stack([levels, x])).fit()
    low, high = fit.conf_int()[-1]
    row |= {"slope": fit.params[-1], "slope_low": low, "slope_high": high,
            "p_slope": fit.pvalues[-1], "r2": fit.rsquared}  # fmt: skip
    # A model whose x is the same on all its datasets has no slope of its own.
    separate = levels * (within / np.abs(within).max())[:, None]
    separate = separate[:, np.abs(separate).max(axis=0) > 1e-12]
    fit_per_model = OLS(y, np.column_stack([levels, separate])).fit()
    if fit_per_model.df_resid > 0 and separate.shape[1] > 1:
        row["p_slopes_differ"] = fit_per_model.compare_f_test(fit)[1]
    return {name: float(value) for name, value in row.items()}
