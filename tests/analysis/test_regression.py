"""Lines and hinges, compared with scipy and statsmodels."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.tools.eval_measures import aicc

from foretune.analysis.regression import fit_hinge, fit_line, list_thresholds


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
    assert ours["aicc_line"] == pytest.approx(aicc(fit.llf, 9, 3))


@pytest.mark.parametrize("seed", range(8))
def test_fit_hinge_finds_the_best_of_all_thresholds(seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=11)
    y = np.minimum(x, 0.5) * rng.choice([-2, 2]) + rng.normal(0, 0.2, size=11)
    ours = fit_hinge(x, y, fit_line(x, y)["aicc_line"])
    order = np.sort(x)
    grid = np.linspace(order[1], order[-3], 2000)
    fits = [stats.linregress(np.minimum(x, threshold), y) for threshold in grid]
    best = max(fit.rvalue**2 for fit in fits)
    assert best - 1e-9 <= ours["hinge_r2"] <= best + 1e-4
    fit = sm.OLS(y, sm.add_constant(np.minimum(x, ours["hinge_threshold"]))).fit()
    assert ours["hinge_slope"] == pytest.approx(fit.params[1])
    assert ours["aicc_hinge"] == pytest.approx(aicc(fit.llf, 11, 4))
    line = sm.OLS(y, sm.add_constant(x)).fit()
    assert ours["aicc_difference"] == pytest.approx(aicc(fit.llf, 11, 4) - aicc(line.llf, 11, 3))
    assert ours["hinge_above"] >= 2


def test_fit_hinge_finds_a_threshold_and_prefers_a_straight_line():
    x = np.arange(10.0)
    bend = np.array([0, 1, -1, 1, -1, 0, 1, -1, 1, -1]) * 1e-3
    ours = fit_hinge(x, 2 * np.minimum(x, 5.4) + bend, fit_line(x, 2 * np.minimum(x, 5.4))["r2"])
    assert ours["hinge_threshold"] == pytest.approx(5.4, abs=0.01)
    assert ours["hinge_slope"] == pytest.approx(2, abs=0.01) and ours["hinge_above"] == 4
    straight = fit_line(x, 2 * x + bend)
    assert fit_hinge(x, 2 * x + bend, straight["aicc_line"])["aicc_difference"] > 2
    assert np.isnan(fit_hinge(x[:5], x[:5], 0)["hinge_threshold"])
    assert len(list_thresholds(np.array([0.0, 0, 0, 1, 1]), np.arange(5.0))) == 0


def test_fits_of_many_pairs_are_those_of_each():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(3, 12)), rng.uniform(size=(2, 12))
    lines = fit_line(x, y[:, None])
    hinges = fit_hinge(x, y[:, None], lines["aicc_line"])
    for k, m in np.ndindex(2, 3):
        line = fit_line(x[m], y[k])
        for many, each in ((lines, line), (hinges, fit_hinge(x[m], y[k], line["aicc_line"]))):
            for name, value in each.items():
                assert many[name][k, m] == pytest.approx(float(value))


@pytest.mark.parametrize("n", [9, 12])
def test_fit_hinge_seldom_finds_a_plateau_in_straight_lines(n):
    """By AIC, which does not correct for few points, 7 to 10% of straight lines have a plateau."""
    rng = np.random.default_rng(n)

    def share_of_plateaus(bend, noise, repeats):
        votes = 0
        for _ in range(repeats):
            x = rng.uniform(size=n)
            y = np.minimum(x, bend) + rng.normal(0, noise, n)
            hinge = fit_hinge(x, y, fit_line(x, y)["aicc_line"])
            votes += hinge["aicc_difference"] <= -2 and hinge["hinge_slope"] > 0
        return votes / repeats

    # A share of 0.03 of 500 has a standard error of 0.008.
    assert share_of_plateaus(bend=1, noise=0.15, repeats=500) <= 0.055
    assert share_of_plateaus(bend=0.5, noise=0.03, repeats=50) > 0.7
