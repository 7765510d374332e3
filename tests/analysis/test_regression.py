"""Lines, hinges and pooled lines against scipy and statsmodels."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import stats

from foretune.analysis.regression import fit_hinge, fit_line, fit_pooled, list_thresholds


def test_a_line_agrees_with_scipy_and_its_band_with_statsmodels():
    rng = np.random.default_rng(0)
    x = rng.normal(size=9).round()
    y = x + rng.normal(size=9)
    found, theirs = fit_line(x, y), stats.linregress(x, y)
    assert (found["slope"], found["intercept"]) == pytest.approx((theirs.slope, theirs.intercept))
    assert found["r2"] == pytest.approx(theirs.rvalue**2)
    assert found["p_slope"] == pytest.approx(theirs.pvalue)
    fit = sm.OLS(y, sm.add_constant(x)).fit()
    at = np.array([-1.0, 0.3, 2.0])
    theirs = fit.get_prediction(sm.add_constant(at)).summary_frame(alpha=0.05)
    t, apart = stats.t.ppf(0.975, 7), (at - found["x_mean"]) ** 2 / found["x_squares"]
    half = t * found["residual_sd"] * np.sqrt(1 / 9 + apart)
    centre = found["intercept"] + found["slope"] * at
    assert list(centre + half) == pytest.approx(list(theirs.mean_ci_upper))
    half = t * found["residual_sd"] * np.sqrt(1 + 1 / 9 + apart)
    assert list(centre - half) == pytest.approx(list(theirs.obs_ci_lower))
    assert found["slope_low"] == pytest.approx(fit.conf_int()[1, 0])
    assert found["aic_line"] == pytest.approx(fit.aic)


@pytest.mark.parametrize("seed", range(8))
def test_a_hinge_is_the_best_of_all_thresholds(seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=11)
    y = np.minimum(x, 0.5) * rng.choice([-2, 2]) + rng.normal(0, 0.2, size=11)
    found = fit_hinge(x, y, fit_line(x, y)["aic_line"])
    order = np.sort(x)
    grid = np.linspace(order[1], order[-3], 2000)
    residuals = [stats.linregress(np.minimum(x, t), y) for t in grid]
    best = max(each.rvalue**2 for each in residuals)
    assert best - 1e-9 <= found["hinge_r2"] <= best + 1e-4
    fit = sm.OLS(y, sm.add_constant(np.minimum(x, found["hinge_threshold"]))).fit()
    assert found["hinge_slope"] == pytest.approx(fit.params[1])
    assert found["aic_hinge"] == pytest.approx(fit.aic + 2)
    line = sm.OLS(y, sm.add_constant(x)).fit()
    assert found["aic_difference"] == pytest.approx(fit.aic + 2 - line.aic)
    assert found["hinge_above"] >= 2


def test_a_hinge_finds_its_threshold_and_a_line_has_none():
    x = np.arange(10.0)
    bend = np.array([0, 1, -1, 1, -1, 0, 1, -1, 1, -1]) * 1e-3
    found = fit_hinge(x, 2 * np.minimum(x, 5.4) + bend, fit_line(x, 2 * np.minimum(x, 5.4))["r2"])
    assert found["hinge_threshold"] == pytest.approx(5.4, abs=0.01)
    assert found["hinge_slope"] == pytest.approx(2, abs=0.01) and found["hinge_above"] == 4
    straight = fit_line(x, 2 * x + bend)
    assert fit_hinge(x, 2 * x + bend, straight["aic_line"])["aic_difference"] > 2
    assert np.isnan(fit_hinge(x[:4], x[:4], 0)["hinge_threshold"])
    assert len(list_thresholds(np.array([0.0, 0, 0, 1, 1]), np.arange(5.0))) == 0


def three_models(slopes=(1, 1, 1), seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"model": np.repeat(["a", "b", "c"], 6), "x": rng.normal(size=18)})
    slope = np.repeat(slopes, 6)
    level = np.repeat([0, 5, -3], 6)
    return frame.assign(y=slope * frame.x + level + rng.normal(0, 0.2, 18))


def test_a_pooled_fit_agrees_with_statsmodels_formulas():
    frame = three_models()
    found = fit_pooled(*(frame[c].to_numpy() for c in ("x", "y", "model")))
    fit = smf.ols("y ~ C(model) + x", frame).fit()
    each = smf.ols("y ~ C(model) * x", frame).fit()
    assert found["slope"] == pytest.approx(fit.params["x"])
    assert found["p_slope"] == pytest.approx(fit.pvalues["x"])
    assert found["r2"] == pytest.approx(fit.rsquared)
    assert found["slope_low"] == pytest.approx(fit.conf_int().loc["x", 0])
    assert found["p_slopes_differ"] == pytest.approx(each.compare_f_test(fit)[1])
    assert found["p_slopes_differ"] > 0.05 and (found["n"], found["models"]) == (18, 3)
    other = fit_pooled(*(three_models((1, -1, 4))[c].to_numpy() for c in ("x", "y", "model")))
    assert other["p_slopes_differ"] < 1e-6


def test_a_model_without_a_slope_of_its_own():
    frame = three_models()
    frame.loc[frame.model == "c", "x"] = 0.5
    found = fit_pooled(*(frame[c].to_numpy() for c in ("x", "y", "model")))
    fit = smf.ols("y ~ C(model) + x", frame).fit()
    varied = {name: frame.x.where(frame.model == name, 0) for name in "ab"}
    each = smf.ols("y ~ C(model) + xa + xb", frame.assign(xa=varied["a"], xb=varied["b"])).fit()
    assert found["p_slopes_differ"] == pytest.approx(each.compare_f_test(fit)[1])


def test_a_pooled_fit_without_an_answer():
    frame = three_models()
    one = frame[frame.model == "a"]
    found = fit_pooled(*(one[c].to_numpy() for c in ("x", "y", "model")))
    assert found["n"] == 6 and np.isnan(found["slope"])
    x = frame.model.map({"a": 0.1, "b": 0.7, "c": 0.3}).to_numpy()  # it differs between models only
    found = fit_pooled(x, frame.y.to_numpy(), frame.model.to_numpy())
    assert np.isnan(found["slope"])
    nothing = np.full(18, np.nan)
    assert fit_pooled(nothing, nothing, frame.model.to_numpy())["n"] == 0
