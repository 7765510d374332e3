"""The front of mean gain against mean forgetting: which methods no other one beats in both.

A method, or its interpolation with a WiSE-FT coefficient, is dominated if another one gains no
less and forgets no more, and is better in one of the two. The others are the Pareto front. Methods
are compared on the same datasets, and resampled with them.
"""

import numpy as np
import pandas as pd

from foretune.analysis.outcomes import GAIN
from foretune.analysis.rank_correlation import (
    MIN_BOOTSTRAP_DATASETS,
    count_resamples,
    percentile_interval,
)

FRONT_OUTCOMES = (GAIN, "ood_change")
DECIMALS = 12  # of means that are compared
FRONT_KEY = ["model", "method", "wise_ft", "n"]
FRONT_NUMBERS = [
    *(f"{name}{end}" for name in FRONT_OUTCOMES for end in ("", "_low", "_high")), "front_share",
]  # fmt: skip
FRONT_COLUMNS = [*FRONT_KEY, *FRONT_NUMBERS, "on_front"]


def find_front(gain: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Return which points are on the front, along the last axis of two arrays (..., p).

    A point is on it if no other one has at least its gain and its change, and more of one of them.
    """
    dominated = np.zeros(gain.shape, bool)
    for p in range(gain.shape[-1]):
        other_gain, other_change = gain[..., [p]], change[..., [p]]
        better = (other_gain > gain) | (other_change > change)
        dominated |= (other_gain >= gain) & (other_change >= change) & better
    return ~dominated


def compute_front(tasks: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the mean gain and forgetting of each model's methods, and which are on the front.

    One row per (model, method, wise_ft), over the n datasets on which all of the model's methods
    have both outcomes; a method without any, such as a linear probe, is left out. The zero-shot
    model, which neither gains nor forgets, is one of the points, with the coefficient 0. `_low` and
    `_high` are the ends of 95% percentile intervals of the bootstrap over datasets, and
    `front_share` is the share of its resamples in which the point is on the front. With fewer than
    5 datasets they are NaN.

    tasks: one row per (model, method, dataset, wise_ft); see `study_tables.summarize_tasks`.
    """
    known = tasks.astype(dict.fromkeys(FRONT_OUTCOMES, float)).dropna(subset=list(FRONT_OUTCOMES))
    frames = []
    for model, group in known.groupby("model"):
        wide = group.pivot(
            index="dataset", columns=["method", "wise_ft"], values=list(FRONT_OUTCOMES)
        )
        wide = wide.dropna().sort_index(axis=1)
        n = len(wide)
        if not n:
            continue
        points = wide[GAIN].columns.to_frame(index=False)
        points.loc[-1] = "zero_shot", 0.0
        points = points.sort_index(ignore_index=True)
        # Of each outcome, (n, points); the zero-shot model comes first.
        values = [np.insert(wide[name].to_numpy(), 0, 0, axis=1) for name in FRONT_OUTCOMES]
        table: dict[str, object] = {"model": model, "n": n}
        means, draws = [], []
        for name, outcome in zip(FRONT_OUTCOMES, values, strict=True):
            # Rounded, because equal columns may have sums that differ in their last bits.
            means.append(outcome.mean(axis=0).round(DECIMALS))
            table[name] = means[-1]
            if n >= MIN_BOOTSTRAP_DATASETS:
                weights = count_resamples(n, seed).datasets / n
                draws.append((weights @ outcome).round(DECIMALS))
                table[f"{name}_low"], table[f"{name}_high"], _ = percentile_interval(draws[-1])
        table["on_front"] = find_front(*means)
        if draws:
            table["front_share"] = find_front(*draws).mean(axis=0)
        frames.append(points.assign(**table))
    frame = pd.concat(frames) if frames else pd.DataFrame()
    frame = frame.reindex(columns=FRONT_COLUMNS).reset_index(drop=True)
    numbers = dict.fromkeys(["wise_ft", *FRONT_NUMBERS], "float64")
    texts = dict.fromkeys(["model", "method"], "str")
    return frame.astype(texts | numbers | {"n": "int64", "on_front": "bool"})
