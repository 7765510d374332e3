"""Rank correlations, their p-values and their intervals, compared with scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from foretune.analysis.rank_correlation import (
    bootstrap_correlations,
    correlate,
    count_resamples,
    percentile_interval,
    rank_scores,
    sign_scores,
)


def make_points(n, seed=0, ties=True):
    """Return x (3, n) and y (2, n), with or without ties."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(3, n)), rng.normal(size=(2, n))
    y[0] += x[0]
    return (x.round(), y.round(1)) if ties else (x, y)


@pytest.mark.parametrize("ties", [True, False])
def test_correlate_agrees_with_scipy(ties):
    x, y = make_points(6, ties=ties)
    ours = correlate(x, y, seed=0)
    for k, m in np.ndindex(2, 3):
        rho, tau = stats.spearmanr(x[m], y[k]), stats.kendalltau(x[m], y[k], method="asymptotic")
        assert ours["spearman"][k, m] == pytest.approx(rho.statistic)
        assert ours["p_asymptotic"][k, m] == pytest.approx(rho.pvalue)
        assert ours["kendall"][k, m] == pytest.approx(tau.statistic)
        assert ours["p_kendall_asymptotic"][k, m] == pytest.approx(tau.pvalue)
        if (k, m) not in [(0, 0), (1, 2)]:  # scipy's exact test is slow
            continue
        for name, statistic in [
            ("p_permutation", lambda order, k=k: stats.spearmanr(order, y[k]).statistic),
            ("p_kendall_permutation", lambda order, k=k: stats.kendalltau(order, y[k]).statistic),
        ]:
            exact = stats.permutation_test(
                (x[m],), statistic, permutation_type="pairings", n_resamples=720
            )
            assert ours[name][k, m] == pytest.approx(exact.pvalue)
        if not ties:
            exact = stats.kendalltau(x[m], y[k], method="exact").pvalue
            assert ours["p_kendall_permutation"][k, m] == pytest.approx(exact)


@pytest.mark.parametrize("n", [8, 9, 10])
def test_correlate_counts_all_orders_up_to_ten_datasets(n):
    """Compare Kendall's p with scipy's recursion, and with ties both p with its 8! orders."""
    x, y = make_points(n, ties=False)
    exact = [[stats.kendalltau(a, b, method="exact").pvalue for a in x] for b in y]
    assert correlate(x, y, seed=0)["p_kendall_permutation"] == pytest.approx(np.array(exact))
    perfect = correlate(x[:1], x[:1], seed=0)
    assert perfect["p_permutation"][0, 0] == pytest.approx(2 / math.factorial(n))
    if n > 8:
        return
    x, y = make_points(n, seed=1)
    ours = correlate(x, y, seed=0)
    for name, score in (("p_permutation", rank_scores), ("p_kendall_permutation", sign_scores)):
        exact = stats.permutation_test(
            (x[0],), lambda order, axis, score=score: score(order) @ score(y[0]),
            permutation_type="pairings", n_resamples=50_000, vectorized=True,
        )  # fmt: skip
        assert ours[name][0, 0] == pytest.approx(exact.pvalue)


def test_correlate_approximates_the_exact_distribution_by_random_orders():
    x, y = make_points(12, ties=False)
    p_values = correlate(x, y, seed=0)["p_kendall_permutation"]
    exact = [[stats.kendalltau(a, b, method="exact").pvalue for a in x] for b in y]
    # Twice a tail of 9,999 draws has a standard error of at most 0.01; numpy may draw otherwise.
    assert p_values == pytest.approx(np.array(exact), abs=0.04)
    assert (p_values == correlate(x, y, seed=0)["p_kendall_permutation"]).all()


def test_bootstrap_correlations_agree_with_scipy_in_each_resample():
    x, y = make_points(6)
    drawn, counts = bootstrap_correlations(x, y, seed=3), count_resamples(6, 3)
    rows = [np.repeat(np.arange(6), times) for times in counts.datasets.astype(int)]
    for r in range(40):
        for k, m in np.ndindex(2, 3):
            a, b = x[m, rows[r]], y[k, rows[r]]
            if np.ptp(a) == 0 or np.ptp(b) == 0:
                assert np.isnan(drawn["spearman"][r, k, m])
                continue
            assert drawn["spearman"][r, k, m] == pytest.approx(stats.spearmanr(a, b).statistic)
            assert drawn["kendall"][r, k, m] == pytest.approx(stats.kendalltau(a, b).statistic)
    ours = correlate(x, y, seed=3)
    values = drawn["spearman"][:, 0, 0]
    low, high = np.quantile(values[np.isfinite(values)], [0.025, 0.975])
    assert ours["spearman_low"][0, 0] == pytest.approx(low)
    assert ours["spearman_high"][0, 0] == pytest.approx(high)
    assert ours["bootstrap_n"][0, 0] == np.isfinite(values).sum()


def test_percentile_interval_is_nan_for_mostly_degenerate_resamples():
    draws = np.array([[0.1, 0.1], [0.2, np.nan], [0.3, np.nan], [np.nan, np.nan]])
    low, high, used = percentile_interval(draws)
    assert low[0] == pytest.approx(0.105) and high[0] == pytest.approx(0.295)
    assert list(used) == [3, 1] and np.isnan([low[1], high[1]]).all()
    x, y = make_points(4, ties=False)
    assert np.isnan(correlate(x, y, seed=0)["spearman_low"]).all()  # below five datasets
