"""One line for several models on the same datasets, tested by permuting whole datasets.

Models that share datasets are not independent: what makes a dataset hard is hard for all of them.
A test that counts their tasks as independent finds a relation too often. If x and y are unrelated,
however, the datasets of y can be exchanged as a whole, with the same order for all models, without
a change of the joint distribution, whatever the models have in common (Winkler et al. 2015,
NeuroImage 123, whole-block exchangeability).
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from foretune.analysis.rank_correlation import PERMUTATIONS, list_permutations

POOLED_COLUMNS = (
    "n", "datasets", "models", "slope", "slope_low", "slope_high", "p_slope", "r2",
    "p_slopes_differ",
)  # fmt: skip
LEVEL = 0.05
TOLERANCE = 1e-12  # differences of rounding, relative to the largest value


class SlopeTest(NamedTuple):
    """A common slope with its 95% interval and p-value; NaN where there are too few datasets."""

    slope: float
    low: float
    high: float
    p: float


@functools.cache  # most measures and outcomes of a study are over the same datasets
def draw_orders(n: int, seed: int) -> np.ndarray:
    """Return orders of n datasets, the identity first: all n!, or 10,000 with random ones."""
    if math.factorial(n) <= PERMUTATIONS:
        orders = list_permutations(n)
        return np.concatenate([np.arange(n)[None], orders[(orders != np.arange(n)).any(axis=1)]])
    rng = np.random.default_rng([seed, n, 2])
    drawn = rng.permuted(np.tile(np.arange(n), (PERMUTATIONS, 1)), axis=1)
    return np.concatenate([np.arange(n)[None], drawn])


def permuted_products(x: np.ndarray, y: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Return the products of each model's x and reordered y as (orders, models).

    x, y: (datasets, models). The loop over datasets bounds the memory.
    """
    products = np.zeros((len(orders), x.shape[1]))
    for dataset, order in enumerate(orders.T):
        products += (x[dataset] * y)[order]  # in this order, the product is small
    return products


def estimate_common_slope(x: np.ndarray, y: np.ndarray, orders: np.ndarray) -> SlopeTest:
    """Fit y = slope x to centred x and y, (datasets, models), and test it by permuting datasets.

    orders: the result of `draw_orders`. The interval holds the slopes b for which the permutation
    test does not reject that y - b x is unrelated to x. An order p prefers every slope on one side
    of b[p] = (xy - xy[p]) / (xx - xx[p]), where xy[p] and xx[p] are the products of x with
    reordered y and reordered x. The interval's ends are therefore two of the sorted b[p], and the
    p-value is twice the smaller share of them on a side of 0.
    """
    # Entry (d, e) is the product of dataset d's x with dataset e's x or y, over all models.
    rows = np.arange(len(x))
    xx, xy = ((x @ other.T)[rows, orders].sum(axis=1) for other in (x, y))
    slope = xy[0] / xx[0]
    moved = xx[0] - xx > TOLERANCE * xx[0]
    slopes = np.sort((xy[0] - xy[moved]) / (xx[0] - xx[moved]))
    same = len(orders) - len(slopes)  # these orders change nothing, and count on both sides
    rounding = TOLERANCE * np.abs(slopes).max(initial=0)
    tail = min((slopes <= rounding).sum(), (slopes >= -rounding).sum()) + same
    outside = math.floor(LEVEL / 2 * len(orders)) - same + 1
    low, high = (
        (slopes[outside - 1], slopes[-outside]) if 0 < outside <= len(slopes) else (np.nan, np.nan)
    )
    return SlopeTest(slope, low, high, min(1.0, 2 * tail / len(orders)))


def equal_slopes_p_value(x: np.ndarray, y: np.ndarray, orders: np.ndarray) -> float:
    """Return the p-value of one slope per model against a common one, by permuting datasets.

    x, y: centred, (datasets, models). The residuals of the common line are permuted (Freedman and
    Lane 1983); the statistic is the sum of squares that slopes of their own explain. A model
    whose x is constant has no slope of its own. NaN if fewer than two models have one.
    """
    squares = np.square(x).sum(axis=0)
    varied = squares > TOLERANCE * squares.max()
    x, y, squares = x[:, varied], y[:, varied], squares[varied]
    if len(squares) < 2:
        return np.nan
    residuals = y - x * ((x * y).sum() / squares.sum())
    products = permuted_products(x, residuals, orders)
    explained = (products**2 / squares).sum(axis=1) - products.sum(axis=1) ** 2 / squares.sum()
    return float((explained >= explained[0] - TOLERANCE * np.square(y).sum()).mean())


def tabulate_models(tasks: pd.DataFrame, names: list[str]) -> dict[str, np.ndarray]:
    """Return each column of `names` as (datasets, models), NaN if a task has no value.

    tasks: one row per (model, dataset).
    """
    return {
        name: tasks.pivot(index="dataset", columns="model", values=name).to_numpy(float)
        for name in names
    }


def share_datasets(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y, (datasets, models), of the datasets that all models have.

    A model without any value is left out, and then each dataset for which a value of another model
    is missing or not finite.
    """
    known = np.isfinite(x) & np.isfinite(y)
    models = known.any(axis=0)
    datasets = known[:, models].all(axis=1)
    return x[datasets][:, models], y[datasets][:, models]


def fit_pooled(x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, float]:
    """Fit one slope for all models and one intercept per model: y = intercept[model] + slope x.

    x, y: measure and outcome of one method, (datasets, models), from `tabulate_models`. Only
    datasets that all models have are used. p_slope, the interval of the slope and p_slopes_differ
    (one slope per model) come from permutations of whole datasets. The statistics are NaN for one
    model, fewer than three datasets, constant y, and x that is constant within every model.
    """
    x, y = share_datasets(x, y)
    datasets, models = x.shape
    row = dict.fromkeys(POOLED_COLUMNS, np.nan)
    row |= {"n": x.size, "datasets": datasets, "models": models}
    if models < 2 or datasets < 3:
        return row
    within, changes = x - x.mean(axis=0), y - y.mean(axis=0)
    if np.ptp(y) == 0 or np.abs(within).max() <= TOLERANCE * np.abs(x).max():
        return row
    orders = draw_orders(datasets, seed)
    test = estimate_common_slope(within, changes, orders)
    residual = np.square(changes - test.slope * within).sum()
    return row | {
        "slope": test.slope, "slope_low": test.low, "slope_high": test.high, "p_slope": test.p,
        "r2": 1 - residual / np.square(y - y.mean()).sum(),
        "p_slopes_differ": equal_slopes_p_value(within, changes, orders),
    }  # fmt: skip
