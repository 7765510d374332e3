"""Tables that relate measures to outcomes: correlations, fits, and comparisons with IIMM."""

import math

import numpy as np
import pandas as pd

from foretune.analysis.outcomes import GAIN
from foretune.analysis.pooled import POOLED_COLUMNS, fit_pooled, tabulate_models
from foretune.analysis.rank_correlation import correlate, percentile_interval
from foretune.analysis.regression import HINGE_COLUMNS, LINE_COLUMNS, fit_hinge, fit_line
from foretune.measures.compute import MEASURES

STATISTICS_OUTCOMES = (GAIN, "accuracy", "ood_change", "shifted_change")
# A measure's `higher_is_better` refers to these. No source says which sign to expect of forgetting.
SIGNED_OUTCOMES = (GAIN, "accuracy")
CORRELATED = (
    "spearman", "p_asymptotic", "p_permutation", "spearman_low", "spearman_high", "bootstrap_n",
    "kendall", "p_kendall_asymptotic", "p_kendall_permutation", "kendall_low", "kendall_high",
)  # fmt: skip
NUMBERS = (*CORRELATED, *LINE_COLUMNS, *HINGE_COLUMNS)
STATISTICS_KEY = ["model", "method", "measure", "outcome"]
STATISTICS_COLUMNS = [
    *STATISTICS_KEY, "n", *CORRELATED, "p_holm", *LINE_COLUMNS, *HINGE_COLUMNS, "note",
]  # fmt: skip
DIFFERENCE_KEY = ["model", "method", "rival", "outcome", "n"]
DIFFERENCE_NUMBERS = ["iimm", "rival_strength", "difference", "low", "high"]
DIFFERENCE_COLUMNS = [*DIFFERENCE_KEY, *DIFFERENCE_NUMBERS]
TRADE_OFF_KEY = ["model", "method", "n"]
TRADE_OFF_NUMBERS = [
    GAIN, "ood_change", "spearman", "spearman_low", "spearman_high", "p_permutation",
]  # fmt: skip
MIN_CORRELATED_DATASETS = 3
MIN_SIGNIFICANT_DATASETS = 5  # with fewer, no order has a permutation p-value below 0.05
MAX_ABSENT_NAMES = 6  # datasets without a value that a note names


def strength(rho: np.ndarray, measure: str, outcome: str) -> np.ndarray:
    """Return how well a measure predicts an outcome, from Spearman's rho.

    It is rho with the sign that the measure's authors predict, or |rho| if they predict none.
    """
    higher_is_better = MEASURES[measure].higher_is_better if measure in MEASURES else None
    if outcome not in SIGNED_OUTCOMES or higher_is_better is None:
        return np.abs(rho)
    return rho if higher_is_better else -rho


def group_equal_columns(columns: pd.DataFrame) -> list[list[str]]:
    """Group the names of columns that are finite in the same rows."""
    finite = np.isfinite(columns.to_numpy(float))
    groups: dict[bytes, list[str]] = {}
    for name, known in zip(columns, finite.T, strict=True):
        groups.setdefault(known.tobytes(), []).append(name)
    return list(groups.values())


def write_note(n: int, absent: list[str], x: np.ndarray, y: np.ndarray) -> str:
    """Return the caveats of a correlation of x and y over n datasets.

    absent: names of the datasets that lack a value.
    """
    notes = []
    if n < MIN_CORRELATED_DATASETS:
        notes.append(f"n = {n}: too few datasets for a correlation or a fit")
    elif np.ptp(x) == 0 or np.ptp(y) == 0:
        notes.append("the measure or the outcome is the same for every dataset")
    elif n < MIN_SIGNIFICANT_DATASETS:
        # One of the n! orders is the best and one the worst: the two-sided p is at least 2 / n!.
        notes.append(
            f"n = {n}: no order of {n} datasets has an exact p-value below "
            f"{2 / math.factorial(n):.2g}, so nothing here is significant"
        )
    if absent:
        more = len(absent) - MAX_ABSENT_NAMES
        names = ", ".join(absent[:MAX_ABSENT_NAMES])
        notes.append(f"no value for {names}" + (f" and {more} more" if more > 0 else ""))
    return "; ".join(notes)


def run_statistics(
    tasks: pd.DataFrame, names: list[str], outcomes: list[str], seed: int, expected: list[str]
) -> tuple[list[dict], list[dict]]:
    """Return the rows of statistics and of differences for the tasks of one model and method.

    names: the measures; expected: the datasets that the tasks should have. A note names those
    that are missing.
    """
    rows: list[dict] = []
    differences: list[dict] = []
    for outcome_group in group_equal_columns(tasks[outcomes]):
        for measure_group in group_equal_columns(tasks[names]):
            finite = np.isfinite(tasks[[*outcome_group, *measure_group]].to_numpy(float))
            known = tasks[finite.all(axis=1)]
            # IIMM is compared with a rival on the datasets of the rival.
            with_iimm = "iimm" in names and bool(known.iimm.notna().all())
            measures = measure_group + ["iimm"] * (with_iimm and "iimm" not in measure_group)
            x = known[measures].to_numpy(float).T
            y = known[outcome_group].to_numpy(float).T
            absent = [name for name in expected if name not in set(known.dataset)]
            enough = len(known) >= MIN_CORRELATED_DATASETS
            fits: dict[str, np.ndarray] = {}
            if enough:
                lines = fit_line(x, y[:, None])
                hinges = fit_hinge(x, y[:, None], lines["aicc_line"])
                fits = correlate(x, y, seed) | lines | hinges
            for k, outcome in enumerate(outcome_group):
                compared = (
                    compare_with_iimm(fits, k, measures, outcome) if enough and with_iimm else {}
                )
                for m, measure in enumerate(measure_group):
                    key = {"measure": measure, "outcome": outcome, "n": len(known)}
                    row = key | {"note": write_note(len(known), absent, x[m], y[k])}
                    if enough and not np.isnan(fits["spearman"][k, m]):
                        row |= {name: fits[name][k, m] for name in NUMBERS}
                        if measure in compared:
                            differences.append(key | compared[measure])
                    rows.append(row)
    # Restore the order of the measures, which the groups do not keep.
    for table in (rows, differences):
        table.sort(key=lambda row: (names.index(row["measure"]), outcomes.index(row["outcome"])))
    return rows, differences


def compare_with_iimm(
    correlations: dict[str, np.ndarray], k: int, measures: list[str], outcome: str
) -> dict[str, dict]:
    """Return the strength of IIMM minus each rival's, with its interval over the same resamples.

    correlations: the result of `correlate`; k: the outcome's row; measures: the columns.
    """
    strengths, draws = (
        np.stack([strength(rho[..., m], name, outcome) for m, name in enumerate(measures)], axis=-1)
        for rho in (correlations["spearman"][k], correlations["draws"][:, k])
    )
    at = measures.index("iimm")
    low, high, _ = percentile_interval(draws[:, [at]] - draws)
    return {
        rival: {"rival": rival, "iimm": strengths[at], "rival_strength": strengths[m],
                "difference": strengths[at] - strengths[m], "low": low[m], "high": high[m]}
        for m, rival in enumerate(measures) if rival != "iimm"
    }  # fmt: skip


def adjust_p_values(p: np.ndarray) -> np.ndarray:
    """Return p-values (n,) adjusted by Holm (1979, Scandinavian Journal of Statistics 6)."""
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def study_statistics(
    tasks: pd.DataFrame, measured: pd.DataFrame, names: list[str], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compute correlations and fits of every (model, method, measure, outcome), and differences.

    tasks: one row per (model, method, dataset), with the columns of outcomes and of the measures
    `names`; measured: one row per (model, dataset). In the first table, p_holm is p_permutation
    adjusted over the measures of one (model, method, outcome). The second table compares IIMM with
    each rival: it holds differences of strengths (see `strength`) with the interval of the paired
    bootstrap over datasets.
    """
    rows: list[dict] = []
    difference_rows: list[dict] = []
    for (model, method), group in tasks.groupby(["model", "method"]):
        outcomes = [name for name in STATISTICS_OUTCOMES if group[name].notna().any()]
        expected = list(measured.dataset[measured.model == model])
        run = {"model": model, "method": method}
        run_rows, run_differences = run_statistics(group, names, outcomes, seed, expected)
        rows += [run | row for row in run_rows]
        difference_rows += [run | row for row in run_differences]
    statistics = pd.DataFrame(rows, columns=STATISTICS_COLUMNS)
    numbers = [name for name in STATISTICS_COLUMNS if name not in (*STATISTICS_KEY, "n", "note")]
    statistics[numbers] = statistics[numbers].astype(float).replace([np.inf, -np.inf], np.nan)
    tested = statistics[statistics.p_permutation.notna()]
    for _, group in tested.groupby(["model", "method", "outcome"]):
        statistics.loc[group.index, "p_holm"] = adjust_p_values(group.p_permutation.to_numpy())
    differences = pd.DataFrame(difference_rows, columns=DIFFERENCE_COLUMNS)
    differences[DIFFERENCE_NUMBERS] = differences[DIFFERENCE_NUMBERS].astype(float)
    return statistics, differences


def pooled_fits(tasks: pd.DataFrame, names: list[str], seed: int) -> pd.DataFrame:
    """Fit one line per (method, measure, outcome) over all models; see `pooled.fit_pooled`.

    A method that only one model has is left out.
    """
    rows = []
    for method, group in tasks.groupby("method"):
        if group.model.nunique() < 2:
            continue
        outcomes = [name for name in STATISTICS_OUTCOMES if group[name].notna().any()]
        columns = tabulate_models(group, [*names, *outcomes])
        for measure in names:
            for outcome in outcomes:
                fit = fit_pooled(columns[measure], columns[outcome], seed)
                rows.append({"method": method, "measure": measure, "outcome": outcome} | fit)
    frame = pd.DataFrame(rows, columns=["method", "measure", "outcome", *POOLED_COLUMNS])
    counts = ["n", "datasets", "models"]
    numbers = dict.fromkeys(set(POOLED_COLUMNS) - set(counts), "float64")
    return frame.astype(numbers | dict.fromkeys(counts, "int64"))


def correlate_trade_offs(tasks: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Correlate gain with the change on other tasks, over the datasets of each model and method.

    One row per (model, method) with both outcomes on some datasets: their number n and the means
    of both, and from three datasets on Spearman's rho with its interval and p-value. A negative
    rho means that what gains more forgets more.
    """
    rows = []
    for (model, method), group in tasks.groupby(["model", "method"]):
        known = group[[GAIN, "ood_change"]].astype(float).dropna()
        if known.empty:
            continue
        row = {"model": model, "method": method, "n": len(known), **known.mean()}
        if len(known) >= MIN_CORRELATED_DATASETS:
            gain, change = known.to_numpy().T[:, None]
            correlation = correlate(gain, change, seed)
            row |= {name: correlation[name][0, 0] for name in TRADE_OFF_NUMBERS[2:]}
        rows.append(row)
    frame = pd.DataFrame(rows, columns=[*TRADE_OFF_KEY, *TRADE_OFF_NUMBERS])
    return frame.astype({"n": "int64"} | dict.fromkeys(TRADE_OFF_NUMBERS, "float64"))
