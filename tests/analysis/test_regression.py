"""Lines, hinges and pooled lines, compared with scipy and statsmodels."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import stats

from foretune.analysis.regression import fit_hinge, fit_line, fit_pooled, list_thresholds


def test_fit_line_agrees_with_scipy_and_its_band_with_statsmodels():
    rng = np.random.default_rng(0)
    x = rng.normal(size=9).round()
    y = x + rng.normal(size=9)
    ours, theirs = fit_line(x, y), stats.linregress(x, y)
    assert (ours["slope"], ours["intercept"]) == pytest.approx((theirs.slope, theirs.intercept))
    assert ours["r2"] == pytest.approx(theirs.rvalue**2)
    assert ours["p_slope"] == pytest.approx(theirs.pvalue)
    fit = sm.OLS(y, sm.add_constant(x)).fit()
    at = np.array([-1.0, 0.3, 2.0])
    theirs = fit.get_prediction(sm.add_constant(at)).summary_frame(alpha=0.05)
    t, distance = stats.t.ppf(0.975, 7), (at - ours["x_mean"]) ** 2 / ours["x_squares"]
    half = t * ours["residual_sd"] * np.sqrt(1 / 9 + distance)
    centre = ours["intercept"] + ours["slope"] * at
    assert list(centre + half) == pytest.approx(list(theirs.mean_ci_upper))
    half = t * ours["residual_sd"] * np.sqrt(1 + 1 / 9 + distance)
    assert list(centre - half) == pytest.approx(list(theirs.obs_ci_lower))
    assert ours["slope_low"] == pytest.approx(fit.conf_int()[1, 0])
    assert ours["aic_line"] == pytest.approx(fit.aic)


@pytest.mark.parametrize("seed", range(8))
def test_fit_hinge_finds_the_best_of_all_thresholds(seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=11)
    y = np.minimum(x, 0.5) * rng.choice([-2, 2]) + rng.normal(0, 0.2, size=11)
    ours = fit_hinge(x, y, fit_line(x, y)["aic_line"])
    order = np.sort(x)
    grid = np.linspace(order[1], order[-3], 2000)
    fits = [stats.linregress(np.minimum(x, threshold), y) for threshold in grid]
    best = max(fit.rvalue**2 for fit in fits)
    assert best - 1e-9 <= ours["hinge_r2"] <= best + 1e-4
    fit = sm.OLS(y, sm.add_constant(np.minimum(x, ours["hinge_threshold"]))).fit()
    assert ours["hinge_slope"] == pytest.approx(fit.params[1])
    assert ours["aic_hinge"] == pytest.approx(fit.aic + 2)
    line = sm.OLS(y, sm.add_constant(x)).fit()
    assert ours["aic_difference"] == pytest.approx(fit.aic + 2 - line.aic)
    assert ours["hinge_above"] >= 2


def test_fit_hinge_finds_a_threshold_and_prefers_a_straight_line():
    x = np.arange(10.0)
    bend = np.array([0, 1, -1, 1, -1, 0, 1, -1, 1, -1]) * 1e-3
    ours = fit_hinge(x, 2 * np.minimum(x, 5.4) + bend, fit_line(x, 2 * np.minimum(x, 5.4))["r2"])
    assert ours["hinge_threshold"] == pytest.approx(5.4, abs=0.01)
    assert ours["hinge_slope"] == pytest.approx(2, abs=0.01) and ours["hinge_above"] == 4
    straight = fit_line(x, 2 * x + bend)
    assert fit_hinge(x, 2 * x + bend, straight["aic_line"])["aic_difference"] > 2
    assert np.isnan(fit_hinge(x[:4], x[:4], 0)["hinge_threshold"])
    assert len(list_thresholds(np.array([0.0, 0, 0, 1, 1]), np.arange(5.0))) == 0


def make_three_models(slopes=(1, 1, 1), seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"model": np.repeat(["a", "b", "c"], 6), "x": rng.normal(size=18)})
    slope = np.repeat(slopes, 6)
    level = np.repeat([0, 5, -3], 6)
    return frame.assign(y=slope * frame.x + level + rng.normal(0, 0.2, 18))


def fit_frame(frame):
    return fit_pooled(*(frame[name].to_numpy() for name in ("x", "y", "model")))


def test_fit_pooled_agrees_with_statsmodels_formulas():
    frame = make_three_models()
    ours = fit_frame(frame)
    fit = smf.ols("y ~ C(model) + x", frame).fit()
    separate = smf.ols("y ~ C(model) * x", frame).fit()
    assert ours["slope"] == pytest.approx(fit.params["x"])
    assert ours["p_slope"] == pytest.approx(fit.pvalues["x"])
    assert ours["r2"] == pytest.approx(fit.rsquared)
    assert ours["slope_low"] == pytest.approx(fit.conf_int().loc["x", 0])
    assert ours["p_slopes_differ"] == pytest.approx(separate.compare_f_test(fit)[1])
    assert ours["p_slopes_differ"] > 0.05 and (ours["n"], ours["models"]) == (18, 3)
    other = fit_frame(make_three_models((1, -1, 4)))
    assert other["p_slopes_differ"] < 1e-6


def test_fit_pooled_ignores_the_slope_of_a_model_with_constant_x():
    frame = make_three_models()
    frame.loc[frame.model == "c", "x"] = 0.5
    ours = fit_frame(frame)
    fit = smf.ols("y ~ C(model) + x", frame).fit()
    varied = {name: frame.x.where(frame.model == name, 0) for name in "ab"}
    separate = smf.ols("y ~ C(model) + xa + xb", frame.assign(xa=varied["a"], xb=varied["b"])).fit()
    assert ours["p_slopes_differ"] == pytest.approx(separate.compare_f_test(fit)[1])


def test_fit_pooled_is_nan_without_an_answer():
    frame = make_three_models()
    single = frame[frame.model == "a"]
    ours = fit_frame(single)
    assert ours["n"] == 6 and np.isnan(ours["slope"])
    x = frame.model.map({"a": 0.1, "b": 0.7, "c": 0.3}).to_numpy()  # x differs only between models
    ours = fit_pooled(x, frame.y.to_numpy(), frame.model.to_numpy())
    assert np.isnan(ours["slope"])
    nothing = np.full(18, np.nan)
    assert fit_pooled(nothing, nothing, frame.model.to_numpy())["n"] == 0
