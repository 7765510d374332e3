"""Rank correlations of a few datasets: p-values by permutation, intervals by the bootstrap.

Spearman's rho is the cosine of two vectors of centred ranks, Kendall's tau-b that of two vectors
of the signs of all pairs' differences. So both are products of matrices, for all measures,
outcomes, permutations and resamples at once; tests/test_statistics.py compares them with scipy.
"""

import functools
import math

import numpy as np
from scipy import stats

RESAMPLES = 2000  # of the bootstrap
EXACT = 10  # up to so many datasets all orders are tried; 10! takes a second, 11! would a minute
PERMUTATIONS = 9_999  # random orders, where there are more datasets
MIN_POINTS = 5  # below so many datasets most resamples hold two or three of them: no interval


def rank_scores(values: np.ndarray) -> np.ndarray:
    """Centred ranks along the last axis, doubled, so that they are whole and sums are exact."""
    return 2 * stats.rankdata(values, axis=-1) - (np.shape(values)[-1] + 1)


def sign_scores(values: np.ndarray) -> np.ndarray:
    """The sign of each pair's difference, (..., n) -> (..., n (n - 1) / 2)."""
    first, second = np.triu_indices(np.shape(values)[-1], 1)
    return np.sign(values[..., first] - values[..., second])


SCORES = {"spearman": rank_scores, "kendall": sign_scores}


def standardize(scores: np.ndarray) -> np.ndarray:
    """Scaled to length 1 along the last axis; NaN where all are 0, as of a constant."""
    length = np.sqrt(np.square(scores).sum(axis=-1, keepdims=True))
    return scores / np.where(length == 0, np.nan, length)


def list_permutations(n: int) -> np.ndarray:
    """(n!, n) of int8: every order of n things."""
    found = np.zeros((1, 1), np.int8)
    for last in range(1, n):
        found = np.concatenate([np.insert(found, at, last, axis=1) for at in range(last + 1)])
    return found


@functools.cache
def null_distribution(name: str, x: tuple, y: tuple) -> np.ndarray:
    """How many orders of y give each product of its scores with x's: of -top, ..., 0, ..., top.

    x, y: ranks as `rank_scores` has them, in order. All data with the same ties have the same
    distribution, so that it is counted once for most measures and outcomes of a study.
    """
    score = {"spearman": np.asarray, "kendall": sign_scores}[name]  # these are ranks already
    fixed = score(np.array(x, np.float32))
    top = np.abs(score(np.array(y, np.float32))).sum() * np.abs(fixed).max()
    counts, y = np.zeros(2 * int(top) + 1, int), np.array(y, np.int8)
    orders = list_permutations(len(x))
    for start in range(0, len(orders), 20_000):
        moved = score(y[orders[start : start + 20_000]]).astype(np.float32)
        counts += np.bincount((moved @ fixed + top).astype(int), minlength=len(counts))
    return counts


def exact_p_values(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """`permutation_p_values` by counting all orders."""
    ties = [
        [tuple(sorted(row)) for row in rank_scores(both).astype(int).tolist()] for both in (x, y)
    ]
    found, orders = {}, math.factorial(x.shape[1])
    for name, score in SCORES.items():
        products = score(y) @ score(x).T
        found[name] = np.empty(products.shape)
        for k, m in np.ndindex(products.shape):
            counts = null_distribution(name, *sorted((ties[0][m], ties[1][k])))
            at = len(counts) // 2 + int(products[k, m])
            found[name][k, m] = min(1, 2 * min(counts[at:].sum(), counts[: at + 1].sum()) / orders)
    return found


def permutation_p_values(x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Two-sided p-values of every row of x (m, n) with every row of y (k, n), as (k, m) each.

    Exact up to 10 points, where all orders are counted, else from 9,999 random orders, the same
    for all rows. Twice the smaller tail, at most 1, as scipy.stats.permutation_test has it.
    """
    n = x.shape[1]
    if n <= EXACT:
        return exact_p_values(x, y)
    fixed = [score(x).T for score in SCORES.values()]

    def products(order, axis):
        moved = np.moveaxis(y[:, order], 0, -2)  # (..., k, n)
        each = zip(SCORES.values(), fixed, strict=True)
        return np.stack([score(moved) @ against for score, against in each], axis=-3)

    found = stats.permutation_test(
        (np.arange(n),), products, permutation_type="pairings", vectorized=True,
        n_resamples=PERMUTATIONS, rng=np.random.default_rng([seed, n]),
    )  # fmt: skip
    return dict(zip(SCORES, found.pvalue, strict=True))


@functools.cache
def draw_resamples(n: int, seed: int) -> np.ndarray:
    """(2000, n) row numbers drawn with replacement: the same for everything of n datasets."""
    return np.random.default_rng([seed, n, 1]).integers(n, size=(RESAMPLES, n))


def bootstrap_correlations(x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Both correlations of every row of x (m, n) and of y (k, n) in 2000 resamples of the n.

    Returns (resamples, k, m) by name. A resample is degenerate where x or y is constant in it:
    its correlation does not exist, and is NaN. All are NaN below 5 datasets.
    """
    if x.shape[1] < MIN_POINTS:
        return dict.fromkeys(SCORES, np.full((RESAMPLES, len(y), len(x)), np.nan))
    drawn = draw_resamples(x.shape[1], seed)
    found = {}
    for name, score in SCORES.items():
        left = standardize(score(y[:, drawn])).swapaxes(0, 1)  # (resamples, k, ...)
        found[name] = np.stack(
            [(left @ standardize(score(row[drawn]))[..., None])[..., 0] for row in x], axis=-1
        )
    return found


def percentile_interval(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The 95% percentile interval along the first axis: low, high, and how many draws there were.

    Degenerate draws are left out; where they are more than half, there is no interval (NaN).
    """
    used = np.isfinite(draws).sum(axis=0)
    enough = used > len(draws) / 2
    kept = np.where(enough, draws, 0)  # a column of NaN alone would warn
    low, high = np.nanquantile(kept, [0.025, 0.975], axis=0)
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan), used


def correlate(x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Everything about the correlations of rows of x (m, n) with rows of y (k, n), finite, n >= 3.

    Returns (k, m) arrays: spearman, p_asymptotic, p_permutation, spearman_low, spearman_high,
    bootstrap_n (resamples that are not degenerate); kendall, p_kendall_asymptotic,
    p_kendall_permutation, kendall_low, kendall_high; and `draws`, (resamples, k, m) of Spearman's
    rho. NaN where a row is constant; the asymptotic p of a rho of 1 is NaN, too, because its
    formula divides by 1 - rho^2.
    """
    shape = len(y), len(x)
    rho, tau = (np.full((2, *shape), np.nan) for _ in range(2))
    flat = np.ptp(y, axis=1)[:, None] * np.ptp(x, axis=1) == 0
    for k, m in zip(*np.nonzero(~flat), strict=True):
        rho[:, k, m] = stats.spearmanr(x[m], y[k])
        tau[:, k, m] = stats.kendalltau(x[m], y[k], method="asymptotic")
    rho[1][np.abs(rho[0]) > 1 - 1e-12] = np.nan
    p = permutation_p_values(x, y, seed)
    draws = bootstrap_correlations(x, y, seed)
    found = {"spearman": rho[0], "p_asymptotic": rho[1], "p_permutation": p["spearman"]}
    found["spearman_low"], found["spearman_high"], used = percentile_interval(draws["spearman"])
    found |= {"bootstrap_n": used.astype(float), "kendall": tau[0]}
    found |= {"p_kendall_asymptotic": tau[1], "p_kendall_permutation": p["kendall"]}
    found["kendall_low"], found["kendall_high"], _ = percentile_interval(draws["kendall"])
    found = {name: np.where(flat, np.nan, values) for name, values in found.items()}
    return found | {"draws": draws["spearman"]}
