"""Means and intervals over the seeds of a method, on as many training images per class."""

import numpy as np
import pandas as pd
from scipy import stats

from foretune.analysis.outcomes import GAIN
from foretune.core.variants import average_name, parse_variant

# The outcomes, and the smallest and largest value of each.
VALUES = {
    "accuracy": (0, 1), GAIN: (-np.inf, 1), "ood_change": (-1, 1), "shifted_change": (-1, 1),
}  # fmt: skip
ROW_KEYS = ("model", "method", "dataset", "wise_ft", "trained_on", "evaluated_on", "split")
SEED_KEY = ["model", "method", "wise_ft", "dataset"]
SEED_COLUMNS = [*SEED_KEY, "shots", "seeds", *(f"{name}{end}" for name in VALUES
                                               for end in ("", "_low", "_high"))]  # fmt: skip
# Of a selected trial: their mean over different trials would be no setting of any of them.
SETTINGS = ("trial", "learning_rate", "weight_decay", "rank", "reduction", "best_epoch")


def average_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per method without its seed: the mean of the numbers over the seeds.

    Args:
        rows: one per run and what else of ROW_KEYS they have; see `core.variants` for the names
            of the methods.

    Returns:
        The rows, sorted by these keys, or `rows` itself if no method has a seed. A setting of the
        selected trials is NaN unless it is the same for all seeds.
    """
    keys = [name for name in ROW_KEYS if name in rows]
    names = {name: average_name(name) for name in rows.method.unique()}
    if all(name == averaged for name, averaged in names.items()):
        return rows
    groups = rows.assign(method=rows.method.map(names)).groupby(keys, dropna=False)
    how = {
        name: "mean" if pd.api.types.is_numeric_dtype(rows[name]) else "first"
        for name in rows.columns.drop(keys)
    }
    result = groups.agg(how)
    for name in rows.columns.intersection(SETTINGS):
        result[name] = result[name].where(groups[name].nunique(dropna=False) == 1)
    return result.reset_index()[list(rows.columns)]


def keep_first_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each method's first seed, named without it."""
    names = sorted(rows.method.unique(), key=lambda name: parse_variant(name).seed or 0)
    first = {average_name(name): name for name in reversed(names)}
    chosen = rows[rows.method.isin(list(first.values()))]
    return chosen.assign(method=chosen.method.map({name: key for key, name in first.items()}))


def tabulate_seeds(tasks: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each outcome over the seeds of few-shot and repeated runs.

    Args:
        tasks: one row per run, dataset and coefficient of WiSE-FT; the methods have their seeds.

    Returns:
        One row per model, method without seed, wise_ft and dataset, and one whose dataset is None:
        its values are the means over the datasets that every seed has, and then over the seeds.
        `{outcome}_low` and `{outcome}_high` are the ends of the 95% interval of Student's t over
        the seeds, within the values that an outcome can have. It is about the draw of the training
        images and the training, not about that of the test. They are NaN for a single seed. `shots`
        is NaN if all images are used.
    """
    variants = {name: parse_variant(name) for name in tasks.method.unique()}
    chosen = [name for name, v in variants.items() if v.seed is not None or v.shots is not None]
    # A method on all images is shown beside its few-shot runs.
    methods = {variants[name].method for name in chosen}
    runs = tasks[tasks.method.isin([n for n, v in variants.items() if v.method in methods])]
    seeds = {name: -1 if v.seed is None else v.seed for name, v in variants.items()}
    runs = runs.assign(seed=runs.method.map(seeds), method=runs.method.map(average_name))
    rows = [
        {**dict(zip(SEED_KEY, key, strict=True)), **summarize_seeds(group.set_index("seed"))}
        for key, group in runs.groupby(SEED_KEY)
    ]
    for key, group in runs.groupby(SEED_KEY[:-1]):
        everywhere = group.groupby("dataset").seed.nunique() == group.seed.nunique()
        shared = group[group.dataset.isin(everywhere.index[everywhere])]
        if len(shared):
            means = shared.groupby("seed")[list(VALUES)].mean()
            of_all = dict(zip(SEED_KEY, (*key, None), strict=True))
            rows.append({**of_all, **summarize_seeds(means)})
    frame = pd.DataFrame(rows, columns=SEED_COLUMNS)
    numbers = [name for name in SEED_COLUMNS if name not in SEED_KEY[:2] and name != "dataset"]
    shots = frame.method.map(lambda name: parse_variant(name).shots).astype(float)
    frame = frame.assign(shots=shots).astype(dict.fromkeys(numbers, float))
    return frame.sort_values(["model", "method", "wise_ft", "dataset"], ignore_index=True)


def summarize_seeds(values: pd.DataFrame) -> dict[str, float]:
    """Return the number of seeds, and mean and interval of each column of VALUES over the rows."""
    summary: dict[str, float] = {"seeds": len(values)}
    for name, bounds in VALUES.items():
        known = values[name].dropna().to_numpy(float)
        mean = known.mean() if len(known) else np.nan
        reach = np.nan
        if len(known) > 1:
            reach = stats.t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known))
        low, high = np.clip([mean - reach, mean + reach], *bounds)
        summary |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    return summary
