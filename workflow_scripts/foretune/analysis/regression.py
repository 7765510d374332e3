"""Lines, hinges and pooled lines through the datasets of a study, by statsmodels."""

import itertools

import numpy as np
import pandas as pd
from statsmodels.regression.linear_model import OLS
from statsmodels.tools.tools import add_constant

LINE_COLUMNS = ("slope", "intercept", "r2", "p_slope", "slope_low", "slope_high", "residual_sd", "x_mean",
        "x_squares", "x_min", "x_max", "aic_line")  # fmt: skip
HINGE_COLUMNS = ("hinge_threshold", "hinge_slope", "hinge_intercept", "hinge_r2", "hinge_above",
         "aic_hinge", "aic_difference")  # fmt: skip
POOLED_COLUMNS = (
    "n",
    "models",
    "slope",
    "slope_low",
    "slope_high",
    "p_slope",
    "r2",
    "p_slopes_differ",
)


def least_squares_line(x: np.ndarray, y: np.ndarray):
    """The fitted OLS of y on a constant and x."""
    return OLS(y, add_constant(x, has_constant="add")).fit()


def fit_line(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The line y = intercept + slope x, for n >= 3 points, of which x are not all the same.

    The mean's 95% band at x is t(0.975, n - 2) residual_sd sqrt(1/n + (x - x_mean)^2 / x_squares);
    with 1 + 1/n in the place of 1/n it holds a further dataset. aic_line counts two coefficients.
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
    """Where the least squares threshold of a hinge can lie (Hudson 1966, JASA 61).

    That is at a value of x, or between two of them, where the line through the points on the left
    meets the mean of those on the right. Two different x must lie at or below the threshold, which
    make a slope, and two points above it: a single one is no plateau.
    """
    values = np.unique(x)
    found = []
    for left, right in itertools.pairwise(values[1:]):
        below = x <= left
        if (~below).sum() < 2:
            break
        found.append(left)
        slope, intercept = np.polyfit(x[below], y[below], 1)
        meeting = (y[~below].mean() - intercept) / slope if slope else np.nan
        if left < meeting < right:
            found.append(meeting)
    return np.array(found)


def fit_hinge(x: np.ndarray, y: np.ndarray, aic_line: float) -> dict[str, float]:
    """y = intercept + slope min(x, threshold): linear up to the threshold, flat above it.

    The threshold is that of least squares. aic_hinge counts three coefficients; aic_difference is
    aic_hinge - aic_line, below 0 where the hinge fits better. NaN below 5 points or where fewer
    than two lie above every possible threshold.
    """
    found = list_thresholds(x, y) if len(x) >= 5 else ()
    if not len(found):
        return dict.fromkeys(HINGE_COLUMNS, np.nan)
    bent = np.minimum(x, found[:, None])
    centred = bent - bent.mean(axis=1, keepdims=True)
    explained = (centred @ (y - y.mean())) ** 2 / np.square(centred).sum(axis=1)
    best = found[explained.argmax()]
    fit = least_squares_line(np.minimum(x, best), y)
    numbers = (best, fit.params[1], fit.params[0], fit.rsquared, (x > best).sum(),
               fit.aic + 2, fit.aic + 2 - aic_line)  # fmt: skip
    return dict(zip(HINGE_COLUMNS, map(float, numbers), strict=True))


def fit_pooled(x: np.ndarray, y: np.ndarray, model: np.ndarray) -> dict[str, float]:
    """One slope for all models and an intercept for each: y = intercept[model] + slope x.

    p_slopes_differ is of the F test of this against a slope for each model. NaN with one model,
    a constant x or y, or no more points than coefficients.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    levels = pd.get_dummies(pd.Series(model[known]), dtype=float).to_numpy()
    n, models = levels.shape
    facts = dict.fromkeys(POOLED_COLUMNS, np.nan) | {"n": n, "models": models}
    within = x - levels @ (levels.T @ x / levels.sum(axis=0))
    flat = not n or np.ptp(y) == 0 or np.abs(within).max() <= 1e-12 * np.abs(x).max()
    if models < 2 or n <= models + 1 or flat:
        return facts
    fit = OLS(y, np.column_stack([levels, x])).fit()
    low, high = fit.conf_int()[-1]
    facts |= {"slope": fit.params[-1], "slope_low": low, "slope_high": high,
              "p_slope": fit.pvalues[-1], "r2": fit.rsquared}  # fmt: skip
    # Of a model on whose datasets x is the same, there is no slope to differ.
    apart = levels * (within / np.abs(within).max())[:, None]
    apart = apart[:, np.abs(apart).max(axis=0) > 1e-12]
    each = OLS(y, np.column_stack([levels, apart])).fit()
    if each.df_resid > 0 and apart.shape[1] > 1:
        facts["p_slopes_differ"] = each.compare_f_test(fit)[1]
    return {name: float(value) for name, value in facts.items()}
