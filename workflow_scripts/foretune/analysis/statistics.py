"""How measures go with outcomes, in one table for each question asked."""

import math

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from foretune.analysis.rank_correlation import correlate, percentile_interval
from foretune.analysis.regression import (
    HINGE_COLUMNS,
    LINE_COLUMNS,
    POOLED_COLUMNS,
    fit_hinge,
    fit_line,
    fit_pooled,
)
from foretune.measures.compute import MEASURES

STATISTICS_OUTCOMES = ("gain_over_zero_shot_error", "accuracy", "ood_change", "shifted_change")
# What a measure's `higher_is_better` speaks of; of forgetting no source says which sign to expect.
GAINS = ("gain_over_zero_shot_error", "accuracy")
CORRELATED = ("spearman", "p_asymptotic", "p_permutation", "spearman_low", "spearman_high",
              "bootstrap_n", "kendall", "p_kendall_asymptotic", "p_kendall_permutation",
              "kendall_low", "kendall_high")  # fmt: skip
STATISTICS_KEY = ["model", "method", "measure", "outcome"]
STATISTICS_COLUMNS = [
    *STATISTICS_KEY,
    "n",
    *CORRELATED,
    "p_holm",
    *LINE_COLUMNS,
    *HINGE_COLUMNS,
    "note",
]
DIFFERENCE_COLUMNS = ["model", "method", "rival", "outcome", "n", "iimm", "rival_strength", "difference",
               "low", "high"]  # fmt: skip


def strength(rho: np.ndarray, measure: str, outcome: str) -> np.ndarray:
    """How well a measure predicts: rho times the sign that its authors promise, else |rho|."""
    higher_is_better = MEASURES[measure].higher_is_better if measure in MEASURES else None
    if outcome not in GAINS or higher_is_better is None:
        return np.abs(rho)
    return rho if higher_is_better else -rho


def group_equal_columns(columns: pd.DataFrame) -> list[list[str]]:
    """Columns in lists of those that are finite in the same rows."""
    finite = np.isfinite(columns.to_numpy(float))
    groups: dict[bytes, list[str]] = {}
    for name, known in zip(columns, finite.T, strict=True):
        groups.setdefault(known.tobytes(), []).append(name)
    return list(groups.values())


def write_note(n: int, absent: list[str], x: np.ndarray, y: np.ndarray) -> str:
    """What a reader must know of a correlation of n datasets; absent: those without a value."""
    notes = []
    if n < 3:
        notes.append(f"n = {n}: too few datasets for a correlation or a fit")
    elif np.ptp(x) == 0 or np.ptp(y) == 0:
        notes.append("one of the two is the same for every dataset")
    elif n < 5:
        # Of n! orders one is the best and one the worst: two-sided p is at least 2 / n!.
        notes.append(
            f"n = {n}: no order of {n} datasets has an exact p-value below "
            f"{2 / math.factorial(n):.2g}, so nothing here is significant"
        )
    if absent:
        more = f" and {len(absent) - 6} more" if len(absent) > 6 else ""
        notes.append(f"no value for {', '.join(absent[:6])}{more}")
    return "; ".join(notes)


def run_statistics(
    tasks: pd.DataFrame, names: list[str], outcomes: list[str], seed: int, expected: list[str]
) -> tuple[list[dict], list[dict]]:
    """Rows of statistics and of differences, of the tasks of one model and method.

    expected: the datasets that the tasks should have; those that they lack are noted.
    """
    rows, rivals = [], []
    for group in group_equal_columns(tasks[outcomes]):
        for measures in group_equal_columns(tasks[names]):
            some = tasks[np.isfinite(tasks[[*group, *measures]].to_numpy(float)).all(axis=1)]
            # The comparison is on the rival's own datasets.
            with_iimm = "iimm" in names and bool(some.iimm.notna().all())
            columns = measures + ["iimm"] * (with_iimm and "iimm" not in measures)
            x, y = some[columns].to_numpy(float).T, some[group].to_numpy(float).T
            absent = [name for name in expected if name not in set(some.dataset)]
            found = correlate(x, y, seed) if len(some) >= 3 else None
            for k, outcome in enumerate(group):
                for m, measure in enumerate(columns):
                    facts = {"measure": measure, "outcome": outcome, "n": len(some)}
                    flat = found is None or np.isnan(found["spearman"][k, m])
                    if measure in measures:
                        row = facts | {"note": write_note(len(some), absent, x[m], y[k])}
                        if not flat:
                            row |= {name: found[name][k, m] for name in CORRELATED}
                            row |= fit_line(x[m], y[k])
                            row |= fit_hinge(x[m], y[k], row["aic_line"])
                        rows.append(row)
                    if with_iimm and measure != "iimm" and not flat:
                        i = columns.index("iimm")
                        rivals.append(facts | compare_measures(found, k, i, m, measure, outcome))
    # In the order of measures, whatever lacks a value.
    for table in (rows, rivals):
        table.sort(key=lambda row: (names.index(row["measure"]), outcomes.index(row["outcome"])))
    return rows, rivals


def compare_measures(found: dict, k: int, i: int, m: int, rival: str, outcome: str) -> dict:
    """iimm's strength less the rival's, with its interval over the same resamples."""
    own, other = (
        (strength(found["spearman"][k, j], name, outcome),
         strength(found["draws"][:, k, j], name, outcome))
        for j, name in ((i, "iimm"), (m, rival))
    )  # fmt: skip
    low, high, _ = percentile_interval(own[1] - other[1])
    return {"rival": rival, "iimm": own[0], "rival_strength": other[0],
            "difference": own[0] - other[0], "low": low, "high": high}  # fmt: skip


def study_statistics(
    tasks: pd.DataFrame, measured: pd.DataFrame, names: list[str], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Correlations and fits of every (model, method, measure, outcome), and iimm against rivals.

    tasks: a row for each (model, method, dataset), with columns of outcomes and of the measures
    `names`; measured: every (model, dataset). p_holm is p_permutation adjusted over the measures
    of one (model, method, outcome). Differences are of strengths (see `strength`), with the
    interval of the paired bootstrap over datasets.
    """
    rows, rivals = [], []
    for (model, method), group in tasks.groupby(["model", "method"]):
        outcomes = [name for name in STATISTICS_OUTCOMES if group[name].notna().any()]
        expected = list(measured.dataset[measured.model == model])
        run = {"model": model, "method": method}
        for table, new in zip(
            (rows, rivals), run_statistics(group, names, outcomes, seed, expected), strict=True
        ):
            table += [run | row for row in new]
    statistics = pd.DataFrame(rows, columns=STATISTICS_COLUMNS)
    numbers = [name for name in STATISTICS_COLUMNS if name not in (*STATISTICS_KEY, "n", "note")]
    statistics[numbers] = statistics[numbers].astype(float).replace([np.inf, -np.inf], np.nan)
    tested = statistics[statistics.p_permutation.notna()]
    for _, group in tested.groupby(["model", "method", "outcome"]):
        adjusted = multipletests(group.p_permutation, method="holm")[1]
        statistics.loc[group.index, "p_holm"] = adjusted
    differences = pd.DataFrame(rivals, columns=DIFFERENCE_COLUMNS)
    differences[DIFFERENCE_COLUMNS[5:]] = differences[DIFFERENCE_COLUMNS[5:]].astype(float)
    return statistics, differences


def pooled_fits(tasks: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """One line for all models of a method, each with its own intercept; see `fits.fit_pooled`."""
    rows = [
        {"method": method, "measure": name, "outcome": outcome,
         **fit_pooled(*(group[c].to_numpy(float) for c in (name, outcome)), group.model.to_numpy())}
        for method, group in tasks.groupby("method") if group.model.nunique() > 1
        for name in names
        for outcome in STATISTICS_OUTCOMES if group[outcome].notna().any()
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["method", "measure", "outcome", *POOLED_COLUMNS])
    counts = ["n", "models"]
    numbers = {name: float for name in POOLED_COLUMNS if name not in counts}
    return frame.astype(numbers | dict.fromkeys(counts, "int64"))
