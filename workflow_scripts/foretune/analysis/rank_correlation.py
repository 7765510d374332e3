"""Rank correlations of a few datasets: p-values by permutation, intervals by the bootstrap.

Spearman's rho is the cosine of two vectors of centred ranks; Kendall's tau-b is the cosine of two
vectors of the signs of all pairwise differences. Both are therefore matrix products, computed for
all measures, outcomes, permutations and resamples at once.
tests/analysis/test_rank_correlation.py compares them with scipy.
"""

import functools
import math

import numpy as np
from scipy import stats

RESAMPLES = 2000  # of the bootstrap
MAX_EXACT_DATASETS = 10  # all orders are tried up to here: 10! take a second, 11! take a minute
PERMUTATIONS = 9_999  # random orders if there are more datasets
MIN_BOOTSTRAP_DATASETS = 5  # with fewer, most resamples hold only two or three distinct datasets
ORDERS_PER_BLOCK = 20_000  # bounds the memory of the exact test


def rank_scores(values: np.ndarray) -> np.ndarray:
    """Return twice the centred ranks along the last axis: integers, so that sums are exact."""
    return 2 * stats.rankdata(values, axis=-1) - (np.shape(values)[-1] + 1)


def sign_scores(values: np.ndarray) -> np.ndarray:
    """Return the sign of each pairwise difference, (..., n) -> (..., n (n - 1) / 2)."""
    first, second = np.triu_indices(np.shape(values)[-1], 1)
    return np.sign(values[..., first] - values[..., second])


SCORES = {"spearman": rank_scores, "kendall": sign_scores}


def normalize_scores(scores: np.ndarray) -> np.ndarray:
    """Scale vectors along the last axis to length 1; a vector of zeros becomes NaN."""
    length = np.sqrt(np.square(scores).sum(axis=-1, keepdims=True))
    return scores / np.where(length == 0, np.nan, length)


def list_permutations(n: int) -> np.ndarray:
    """Return all orders of n things as an (n!, n) array of int8."""
    orders = np.zeros((1, 1), np.int8)
    for last in range(1, n):
        orders = np.concatenate([np.insert(orders, at, last, axis=1) for at in range(last + 1)])
    return orders


@functools.cache
def null_distribution(name: str, x: tuple[int, ...], y: tuple[int, ...]) -> np.ndarray:
    """Count the orders of y by the product of their scores with those of x.

    x, y: sorted `rank_scores`. Entry i of the result counts the product i - top; it has
    2 top + 1 entries. All data with the same ties have the same distribution, so that the cache
    serves most measures and outcomes of a study.
    """
    score = np.asarray if name == "spearman" else sign_scores  # x and y are ranks already
    fixed = score(np.array(x, np.float32))
    top = np.abs(score(np.array(y, np.float32))).sum() * np.abs(fixed).max()
    counts, ranks = np.zeros(2 * int(top) + 1, int), np.array(y, np.int8)
    orders = list_permutations(len(x))
    for start in range(0, len(orders), ORDERS_PER_BLOCK):
        permuted = score(ranks[orders[start : start + ORDERS_PER_BLOCK]]).astype(np.float32)
        counts += np.bincount((permuted @ fixed + top).astype(int), minlength=len(counts))
    return counts


def exact_p_values(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Return `permutation_p_values` from the counts of all n! orders."""
    x_ranks, y_ranks = (
        [tuple(sorted(row)) for row in rank_scores(rows).astype(int).tolist()] for rows in (x, y)
    )
    orders = math.factorial(x.shape[1])
    p_values = {}
    for name, score in SCORES.items():
        products = score(y) @ score(x).T
        p_values[name] = np.empty(products.shape)
        for k, m in np.ndindex(products.shape):
            counts = null_distribution(name, *sorted((x_ranks[m], y_ranks[k])))
            at = len(counts) // 2 + int(products[k, m])
            smaller_tail = min(counts[at:].sum(), counts[: at + 1].sum())
            p_values[name][k, m] = min(1, 2 * smaller_tail / orders)
    return p_values


def permutation_p_values(x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return two-sided p-values of each row of x (m, n) with each row of y (k, n).

    Returns a (k, m) array for "spearman" and one for "kendall". They are exact up to 10 datasets,
    where all orders are counted; otherwise they come from 9,999 random orders, the same for all
    rows. A p-value is twice the smaller tail, at most 1, as in scipy.stats.permutation_test.
    """
    n = x.shape[1]
    if n <= MAX_EXACT_DATASETS:
        return exact_p_values(x, y)
    x_scores = [score(x).T for score in SCORES.values()]

    def compute_products(order, axis):
        permuted = np.moveaxis(y[:, order], 0, -2)  # (..., k, n)
        pairs = zip(SCORES.values(), x_scores, strict=True)
        return np.stack([score(permuted) @ scores for score, scores in pairs], axis=-3)

    test = stats.permutation_test(
        (np.arange(n),), compute_products, permutation_type="pairings", vectorized=True,
        n_resamples=PERMUTATIONS, rng=np.random.default_rng([seed, n]),
    )  # fmt: skip
    return dict(zip(SCORES, test.pvalue, strict=True))


@functools.cache
def draw_resamples(n: int, seed: int) -> np.ndarray:
    """Draw (2000, n) row numbers with replacement, the same for every statistic of n datasets."""
    return np.random.default_rng([seed, n, 1]).integers(n, size=(RESAMPLES, n))


def bootstrap_correlations(x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return both correlations of each row of x (m, n) and y (k, n) in 2000 resamples.

    Returns a (resamples, k, m) array for "spearman" and one for "kendall". In a degenerate
    resample x or y is constant, so the correlation does not exist and is NaN. With fewer than
    5 datasets all are NaN.
    """
    if x.shape[1] < MIN_BOOTSTRAP_DATASETS:
        return dict.fromkeys(SCORES, np.full((RESAMPLES, len(y), len(x)), np.nan))
    drawn = draw_resamples(x.shape[1], seed)
    correlations = {}
    for name, score in SCORES.items():
        y_scores = normalize_scores(score(y[:, drawn])).swapaxes(0, 1)  # (resamples, k, ...)
        correlations[name] = np.stack(
            [(y_scores @ normalize_scores(score(row[drawn]))[..., None])[..., 0] for row in x],
            axis=-1,
        )
    return correlations


def percentile_interval(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the 95% percentile interval along the first axis, and how many draws it used.

    Degenerate draws (NaN) are ignored. If half of the draws or more are degenerate, the interval
    is NaN.
    """
    used = np.isfinite(draws).sum(axis=0)
    enough = used > len(draws) / 2
    kept = np.where(enough, draws, 0)  # nanquantile warns of a column that holds only NaN
    low, high = np.nanquantile(kept, [0.025, 0.975], axis=0)
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan), used


def correlate(x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Compute all rank statistics of the rows of x (m, n) with the rows of y (k, n).

    x and y are finite and n >= 3. Returns (k, m) arrays: spearman, p_asymptotic, p_permutation,
    spearman_low, spearman_high, bootstrap_n (resamples that are not degenerate); kendall,
    p_kendall_asymptotic, p_kendall_permutation, kendall_low, kendall_high; and `draws`,
    (resamples, k, m), the bootstrap's values of Spearman's rho.

    They are NaN if a row is constant. The asymptotic p-value of |rho| = 1 is NaN, too, because its
    formula divides by 1 - rho^2.
    """
    shape = len(y), len(x)
    rho, tau = (np.full((2, *shape), np.nan) for _ in range(2))  # each with its p-value
    flat = np.ptp(y, axis=1)[:, None] * np.ptp(x, axis=1) == 0
    for k, m in zip(*np.nonzero(~flat), strict=True):
        rho[:, k, m] = stats.spearmanr(x[m], y[k])
        tau[:, k, m] = stats.kendalltau(x[m], y[k], method="asymptotic")
    rho[1][np.abs(rho[0]) > 1 - 1e-12] = np.nan
    p_values = permutation_p_values(x, y, seed)
    draws = bootstrap_correlations(x, y, seed)
    spearman_low, spearman_high, used = percentile_interval(draws["spearman"])
    kendall_low, kendall_high, _ = percentile_interval(draws["kendall"])
    table = {
        "spearman": rho[0],
        "p_asymptotic": rho[1],
        "p_permutation": p_values["spearman"],
        "spearman_low": spearman_low,
        "spearman_high": spearman_high,
        "bootstrap_n": used.astype(float),
        "kendall": tau[0],
        "p_kendall_asymptotic": tau[1],
        "p_kendall_permutation": p_values["kendall"],
        "kendall_low": kendall_low,
        "kendall_high": kendall_high,
    }
    table = {name: np.where(flat, np.nan, values) for name, values in table.items()}
    return table | {"draws": draws["spearman"]}
