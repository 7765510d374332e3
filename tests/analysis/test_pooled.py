"""One line for several models: compared with statsmodels and scipy, and its error rates."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from foretune.analysis import pooled
from foretune.analysis.outcomes import GAIN
from foretune.analysis.paper_tables import pooled_line
from foretune.analysis.pooled import draw_orders, fit_pooled, tabulate_models


def make_models(slopes=(1, 1, 1), datasets=6, seed=0, shared=0.0, noise=0.2):
    """Return tasks; `shared` is the size of what a dataset adds to y for all models."""
    rng = np.random.default_rng(seed)
    hardness, common = rng.normal(size=(2, datasets))
    frames = [
        pd.DataFrame({
            "model": f"m{i}", "dataset": [f"d{k:02}" for k in range(datasets)],
            "x": 0.8 * common + 0.6 * rng.normal(size=datasets),
            "y": shared * hardness + rng.normal(0, noise, datasets) + 5 * i,
        })
        for i in range(len(slopes))
    ]  # fmt: skip
    for frame, slope in zip(frames, slopes, strict=True):
        frame["y"] += slope * frame.x
    return pd.concat(frames, ignore_index=True)


def fit(frame, seed=0):
    return fit_pooled(*tabulate_models(frame, ["x", "y"]).values(), seed)


@pytest.fixture
def few_orders(monkeypatch):
    """Save time: hundreds of tests need no finer p-values than 1 / 400."""
    monkeypatch.setattr(pooled, "PERMUTATIONS", 399)
    draw_orders.cache_clear()
    yield
    draw_orders.cache_clear()


def test_fit_pooled_has_the_slope_of_statsmodels_and_the_p_value_of_scipy():
    frame = make_models((0, 0, 0), shared=0.5)
    ours = fit(frame)
    theirs = smf.ols("y ~ C(model) + x", frame).fit()
    assert ours["slope"] == pytest.approx(theirs.params["x"])
    assert ours["r2"] == pytest.approx(theirs.rsquared)
    assert (ours["n"], ours["datasets"], ours["models"]) == (18, 6, 3)
    x, y = (frame.pivot(index="dataset", columns="model", values=name) for name in "xy")
    x, y = ((wide - wide.mean()).to_numpy() for wide in (x, y))
    exact = stats.permutation_test(
        (np.arange(6),), lambda order: np.polyfit(x.ravel(), y[order].ravel(), 1)[0],
        permutation_type="pairings", n_resamples=720,
    )  # fmt: skip
    assert ours["p_slope"] == pytest.approx(exact.pvalue)
    assert ours["p_slope"] > 0.05 and ours["slope_low"] < 0 < ours["slope_high"]
    # The ends of the interval are the slopes from which on the test rejects.
    for end, inward in [(ours["slope_low"], 1), (ours["slope_high"], -1)]:
        p_inside, p_outside = (
            fit(frame.assign(y=frame.y - (end + step) * frame.x))["p_slope"]
            for step in (1e-6 * inward, -1e-6 * inward)
        )
        assert p_inside > 0.05 >= p_outside


def test_fit_pooled_tells_equal_slopes_from_different_ones():
    assert fit(make_models())["p_slopes_differ"] > 0.05
    assert fit(make_models((1, -1, 4)))["p_slopes_differ"] < 0.01
    constant = make_models((1, 1))
    constant.loc[constant.model == "m1", "x"] = 0.5
    ours = fit(constant)
    assert np.isnan(ours["p_slopes_differ"]) and ours["slope"] == pytest.approx(1, abs=0.3)


def test_fit_pooled_holds_its_level_if_models_share_what_datasets_add(few_orders):
    """A t test of independent tasks finds a relation in a fifth of these unrelated data."""
    found = np.zeros(5)
    repeats = 250
    for seed in range(repeats):
        frame = make_models((0, 0, 0, 0), datasets=12, seed=seed, shared=0.8, noise=0.6)
        frame[GAIN] = frame.y - 5 * frame.model.str[1:].astype(int)  # without the models' levels
        ours = fit(frame, seed)
        naive = smf.ols("y ~ C(model) + x", frame).fit()
        found += [
            ours["p_slope"] < 0.05,
            ours["p_slopes_differ"] < 0.05,
            not ours["slope_low"] <= 0 <= ours["slope_high"],
            pooled_line(frame, "x", seed)["p_permutation"] < 0.05,
            naive.pvalues["x"] < 0.05,
        ]
    *levels, independent = found / repeats
    # 5% of 250 have a standard error of 0.014; the bounds are about three of them away.
    assert min(levels) > 0.005 and max(levels) < 0.095
    assert independent > 0.12


def test_fit_pooled_has_the_power_to_find_a_real_slope(few_orders):
    found = [
        fit(make_models((0.7,) * 4, 12, seed, shared=0.8, noise=0.6), seed)["p_slope"] < 0.05
        for seed in range(60)
    ]
    assert np.mean(found) > 0.7


def test_fit_pooled_uses_the_datasets_that_all_models_have():
    frame = make_models(datasets=8)
    without = frame[frame.dataset != "d03"]
    frame.loc[(frame.model == "m1") & (frame.dataset == "d03"), "x"] = np.nan
    assert fit(frame) == pytest.approx(fit(without), nan_ok=True) and fit(frame)["n"] == 21
    # A model without any value does not remove the others.
    more = pd.concat([without, without[without.model == "m0"].assign(model="new", x=np.nan)])
    assert fit(more) == pytest.approx(fit(without), nan_ok=True)


def test_fit_pooled_is_nan_without_an_answer():
    frame = make_models()
    single = fit(frame[frame.model == "m0"])
    assert single["n"] == 6 and np.isnan(single["slope"])
    between = frame.assign(x=frame.model.map({"m0": 0.1, "m1": 0.7, "m2": 0.3}))
    assert np.isnan(fit(between)["slope"])
    assert fit(frame.assign(x=np.nan))["n"] == 0
    few = fit(make_models(datasets=4))  # 24 orders: no p-value is below 2 / 24
    assert np.isfinite(few["slope"]) and few["p_slope"] >= 2 / 24 and np.isnan(few["slope_low"])


def test_draw_orders_lists_all_orders_of_few_datasets_and_starts_with_the_given_one():
    orders = draw_orders(4, 0)
    assert len({tuple(order) for order in orders}) == 24 == len(orders)
    many = draw_orders(12, 0)
    assert many.shape == (10_000, 12) and (np.sort(many) == np.arange(12)).all()
    assert (orders[0] == np.arange(4)).all() and (many[0] == np.arange(12)).all()
