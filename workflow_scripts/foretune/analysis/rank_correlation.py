"""Rank correlations of a few datasets: p-values by permutation, intervals by the bootstrap.

Spearman's rho is the cosine of two vectors of centred ranks; Kendall's tau-b is the cosine of two
vectors of the signs of all pairwise differences. A resample draws some datasets several times, so
that both are sums over the datasets, or pairs of them, weighted by how often they were drawn. All
measures, outcomes and resamples are therefore a few matrix products.
tests/analysis/test_rank_correlation.py compares them with scipy.
"""

import functools
import math
from collections import Counter
from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 2000  # of the bootstrap
MAX_EXACT_DATASETS = 10  # all orders are tried up to here: 10! take a second, 11! take a minute
PERMUTATIONS = 9_999  # random orders if there are more datasets
MIN_BOOTSTRAP_DATASETS = 5  # with fewer, most resamples hold only two or three distinct datasets
ORDERS_PER_BLOCK = 5_000  # bounds the memory of the permutation test


def rank_scores(values: np.ndarray) -> np.ndarray:
    """Return twice the centred ranks along the last axis: integers, so that sums are exact."""
    return 2 * stats.rankdata(values, axis=-1) - (np.shape(values)[-1] + 1)


def sign_scores(values: np.ndarray) -> np.ndarray:
    """Return the sign of each pairwise difference, (..., n) -> (..., n (n - 1) / 2)."""
    first, second = np.triu_indices(np.shape(values)[-1], 1)
    return np.sign(values[..., first] - values[..., second])


SCORES = {"spearman": rank_scores, "kendall": sign_scores}


class Weights(NamedTuple):
    """Weights of b resamples: of each dataset, (b, n), and of each pair, (b, n (n - 1) / 2)."""

    datasets: np.ndarray
    pairs: np.ndarray


def weigh_pairs(counts: np.ndarray) -> Weights:
    """Return the weights of integer counts (b, n).

    All sums of ranks and signs are integers below n^3, so that float32 is exact up to 256 datasets.
    """
    n = counts.shape[1]
    counts = counts.astype(np.float32 if n <= 256 else np.float64)
    first, second = np.triu_indices(n, 1)
    return Weights(counts, counts[:, first] * counts[:, second])


def weighted_correlations(x: np.ndarray, y: np.ndarray, weights: Weights) -> dict[str, np.ndarray]:
    """Return both correlations of each row of x (m, n) and y (k, n), for each row of weights.

    Returns a (b, k, m) array for "spearman" and one for "kendall"; they are NaN if the datasets
    that count are constant in x or y.
    """
    counts, pairs = weights
    # A dataset's rank, doubled and centred, is the sum of the signs of its differences from all.
    (x_ranks, x_signs), (y_ranks, y_signs) = (
        (counts @ np.sign(rows[:, None, :] - rows[:, :, None]).astype(counts.dtype),
         sign_scores(rows).astype(counts.dtype))
        for rows in (x, y)
    )  # ranks: (m, b, n); signs: (m, pairs)  # fmt: skip
    products = (y_signs[:, None] * x_signs).reshape(-1, pairs.shape[1])
    sums = {
        "spearman": ((counts * y_ranks).swapaxes(0, 1) @ x_ranks.transpose(1, 2, 0),
                     *(np.einsum("bn,mbn,mbn->bm", counts, ranks, ranks)
                       for ranks in (x_ranks, y_ranks))),
        "kendall": ((pairs @ products.T).reshape(len(counts), len(y), len(x)),
                    *(pairs @ np.abs(signs).T for signs in (x_signs, y_signs))),
    }  # fmt: skip
    correlations = {}
    for name, (product, x_squares, y_squares) in sums.items():
        lengths = np.sqrt(x_squares[:, None, :] * y_squares[:, :, None].astype(float))
        correlations[name] = product / np.where(lengths == 0, np.nan, lengths)
    return correlations


def asymptotic_p_values(x: np.ndarray, y: np.ndarray, rho: np.ndarray) -> dict[str, np.ndarray]:
    """Return two-sided p-values of each row of x (m, n) with each row of y (k, n), as (k, m).

    Spearman's uses the t distribution with n - 2 degrees of freedom, and is NaN for |rho| = 1,
    where the formula divides by 1 - rho^2. Kendall's uses the normal distribution with the
    variance under ties (Kendall 1970, Rank Correlation Methods), as scipy.stats.kendalltau does.
    """
    n = x.shape[1]
    perfect = np.abs(rho) > 1 - 1e-12
    t = rho * np.sqrt((n - 2) / np.where(perfect, np.nan, 1 - rho**2))
    product = sign_scores(y) @ sign_scores(x).T
    ties = []
    for rows in (x, y):
        sizes = [np.unique(row, return_counts=True)[1] for row in rows]
        ties.append(np.array(
            [[(t * (t - 1)).sum(), (t * (t - 1) * (t - 2)).sum(), (t * (t - 1) * (2 * t + 5)).sum()]
             for t in sizes], dtype=float).T)  # fmt: skip
    (x2, x3, x5), (y2, y3, y5) = ties[0][:, None, :], ties[1][:, :, None]
    pairs = n * (n - 1)
    variance = (
        (pairs * (2 * n + 5) - x5 - y5) / 18
        + x2 * y2 / (2 * pairs)
        + x3 * y3 / (9 * pairs * (n - 2))
    )
    z = product / np.sqrt(np.where(variance > 0, variance, np.nan))
    return {"spearman": 2 * stats.t.sf(np.abs(t), n - 2), "kendall": 2 * stats.norm.sf(np.abs(z))}


def list_permutations(n: int) -> np.ndarray:
    """Return all orders of n things as an (n!, n) array of int8."""
    orders = np.zeros((1, 1), np.int8)
    for last in range(1, n):
        orders = np.concatenate([np.insert(orders, at, last, axis=1) for at in range(last + 1)])
    return orders


@functools.cache
def list_orders(n: int, seed: int) -> np.ndarray:
    """Return all orders of up to 10 things as an (n!, n) array, or 9,999 random ones of more."""
    if n <= MAX_EXACT_DATASETS:
        return list_permutations(n)
    rows = np.tile(np.arange(n), (PERMUTATIONS, 1))
    return np.random.default_rng([seed, n]).permuted(rows, axis=1)


@functools.cache
def null_distribution(name: str, x: tuple[int, ...], y: tuple[int, ...], seed: int) -> np.ndarray:
    """Count the orders of y by the product of their scores with those of x.

    x, y: sorted `rank_scores`. Entry i of the result counts the product i - top; it has
    2 top + 1 entries. All data with the same ties have the same distribution, so that the cache
    serves most measures and outcomes of a study.
    """
    score = np.asarray if name == "spearman" else sign_scores  # x and y are ranks already
    fixed = score(np.array(x, float))
    top = np.abs(score(np.array(y, float))).sum() * np.abs(fixed).max()
    counts, ranks = np.zeros(2 * int(top) + 1, int), np.array(y, float)
    orders = list_orders(len(x), seed)
    for start in range(0, len(orders), ORDERS_PER_BLOCK):
        permuted = score(ranks[orders[start : start + ORDERS_PER_BLOCK]])
        counts += np.bincount((permuted @ fixed + top).astype(int), minlength=len(counts))
    return counts


def describe_ties(name: str, x: tuple[int, ...], y: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return sorted ranks that have the same `null_distribution` as x and y.

    Kendall's depends only on the sizes of the ties if x or y has none, so that they can be sorted.
    """
    described = sorted((x, y))  # the distribution is the same with x and y exchanged
    if name == "kendall" and (len(set(x)) == len(x) or len(set(y)) == len(y)):
        sizes = (sorted(Counter(ranks).values()) for ranks in described)
        described = sorted(tuple(np.repeat(range(len(each)), each).tolist()) for each in sizes)
    return described


def permutation_p_values(x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return two-sided p-values of each row of x (m, n) with each row of y (k, n).

    Returns a (k, m) array for "spearman" and one for "kendall". They are exact up to 10 datasets,
    for which all orders are counted; otherwise they come from 9,999 random orders and the order of
    the data. A p-value is twice the smaller tail, at most 1, as in scipy.stats.permutation_test.
    """
    n = x.shape[1]
    x_ranks, y_ranks = (
        [tuple(sorted(row)) for row in rank_scores(rows).astype(int).tolist()] for rows in (x, y)
    )
    drawn = int(n > MAX_EXACT_DATASETS)
    orders = PERMUTATIONS + 1 if drawn else math.factorial(n)
    p_values = {}
    for name, score in SCORES.items():
        products = score(y) @ score(x).T
        p_values[name] = np.empty(products.shape)
        for k, m in np.ndindex(products.shape):
            counts = null_distribution(name, *describe_ties(name, x_ranks[m], y_ranks[k]), seed)
            at = len(counts) // 2 + int(products[k, m])
            smaller_tail = min(counts[at:].sum(), counts[: at + 1].sum()) + drawn
            p_values[name][k, m] = min(1, 2 * smaller_tail / orders)
    return p_values


@functools.cache
def count_resamples(n: int, seed: int) -> Weights:
    """Return how often each of n datasets is in each of 2000 resamples, for every statistic."""
    drawn = np.random.default_rng([seed, n, 1]).integers(n, size=(RESAMPLES, n))
    return weigh_pairs(np.stack([np.bincount(rows, minlength=n) for rows in drawn]))


def bootstrap_correlations(x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return both correlations of each row of x (m, n) and y (k, n) in 2000 resamples.

    Returns a (resamples, k, m) array for "spearman" and one for "kendall". In a degenerate
    resample x or y is constant, so the correlation does not exist and is NaN. With fewer than
    5 datasets all are NaN.
    """
    if x.shape[1] < MIN_BOOTSTRAP_DATASETS:
        return dict.fromkeys(SCORES, np.full((RESAMPLES, len(y), len(x)), np.nan))
    return weighted_correlations(x, y, count_resamples(x.shape[1], seed))


def percentile_interval(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the 95% percentile interval along the first axis, and how many draws it used.

    Degenerate draws (NaN) are ignored. If half of the draws or more are degenerate, the interval
    is NaN.
    """
    used = np.isfinite(draws).sum(axis=0)
    enough = used > len(draws) / 2
    ordered = np.sort(draws, axis=0)  # NaN come last. numpy's nanquantile takes 20 times as long.
    limits = []
    for share in (0.025, 0.975):
        place = share * np.maximum(used - 1, 0)
        below = np.floor(place).astype(int)
        above = np.minimum(below + 1, np.maximum(used - 1, 0))
        lower, upper = (np.take_along_axis(ordered, at[None], axis=0)[0] for at in (below, above))
        limits.append(np.where(enough, lower + (place - below) * (upper - lower), np.nan))
    return limits[0], limits[1], used


def correlate(x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Compute all rank statistics of the rows of x (m, n) with the rows of y (k, n).

    x and y are finite and n >= 3. Returns (k, m) arrays: spearman, p_asymptotic, p_permutation,
    spearman_low, spearman_high, bootstrap_n (resamples that are not degenerate); kendall,
    p_kendall_asymptotic, p_kendall_permutation, kendall_low, kendall_high; and `draws`,
    (resamples, k, m), the bootstrap's values of Spearman's rho.

    They are NaN if a row is constant. The asymptotic p-value of |rho| = 1 is NaN, too, because its
    formula divides by 1 - rho^2.
    """
    flat = np.ptp(y, axis=1)[:, None] * np.ptp(x, axis=1) == 0
    plain = weighted_correlations(x, y, weigh_pairs(np.ones((1, x.shape[1]))))
    rho, tau = plain["spearman"][0], plain["kendall"][0]
    asymptotic = asymptotic_p_values(x, y, rho)
    p_values = permutation_p_values(x, y, seed)
    draws = bootstrap_correlations(x, y, seed)
    spearman_low, spearman_high, used = percentile_interval(draws["spearman"])
    kendall_low, kendall_high, _ = percentile_interval(draws["kendall"])
    table = {
        "spearman": rho,
        "p_asymptotic": asymptotic["spearman"],
        "p_permutation": p_values["spearman"],
        "spearman_low": spearman_low,
        "spearman_high": spearman_high,
        "bootstrap_n": used.astype(float),
        "kendall": tau,
        "p_kendall_asymptotic": asymptotic["kendall"],
        "p_kendall_permutation": p_values["kendall"],
        "kendall_low": kendall_low,
        "kendall_high": kendall_high,
    }
    table = {name: np.where(flat, np.nan, values) for name, values in table.items()}
    return table | {"draws": draws["spearman"]}
