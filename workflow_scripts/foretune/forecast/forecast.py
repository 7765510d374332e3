"""Forecast what fine-tuning would do to a dataset, from the lines of a study's outcomes on IIMM.

A forecast for a (model, method) is the value of the line of an outcome on iimm over the study's
datasets, at the new dataset's iimm. Its 95% prediction interval, by statsmodels, holds the outcome
of one further dataset if errors are normal and have equal variance. Each forecast comes with the
mean error of such forecasts on the study's datasets, where each is forecast from the others.
"""

import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import numpy as np
import pandas as pd

from foretune.analysis.measure_tables import MeasuresFile
from foretune.analysis.outcomes import GAIN
from foretune.analysis.regression import least_squares_line
from foretune.core.errors import ForetuneError
from foretune.core.parquet import read_metadata

MIN_DATASETS = 4  # leaving one out leaves the three that a line with an error needs
# Possible values. A gain has a lower limit, too, which depends on the zero-shot accuracy.
OUTCOME_RANGES = {GAIN: (-np.inf, 1), "accuracy": (0, 1), "ood_change": (-1, 1)}
FORECAST_COLUMNS = [
    "dataset", "model", "method", "outcome", "n_train", "iimm", "n", "expected", "low", "high",
    "clipped", "study_low", "study_high", "study_mean", "outside", "loo_error", "loo_mean_error",
    "loo_rival_error", "loo_rivals", "note",
]  # fmt: skip
FORECAST_NUMBERS = [
    "expected", "low", "high", "study_low", "study_high", "study_mean", "loo_error",
    "loo_mean_error", "loo_rival_error",
]  # fmt: skip
FORECAST_FLAGS = ["clipped", "outside"]
RANKING_COLUMNS = [
    "dataset", "rank", "model", "method", "weight", "score", GAIN, "ood_change", "note",
]  # fmt: skip


class StudyFacts(TypedDict):
    """Metadata of a study's table of tasks."""

    measures: list[str]
    weights: dict[str, str]  # digest of each model's weights
    sources: NotRequired[dict[str, Any]]  # of the bundled study: digests of what it was made from


def read_study_results(folder: Path) -> tuple[pd.DataFrame, StudyFacts]:
    """Return a study's tasks and their metadata.

    folder: the study's `results/analysis`. Raises ForetuneError, naming the file, if there is no
    study or if it did not measure IIMM.
    """
    path = Path(folder) / "tasks.parquet"
    facts = read_metadata(path)
    if "iimm" not in facts.get("measures", []):
        raise ForetuneError(f"{path}: the study did not measure iimm, which every forecast needs")
    return pd.read_parquet(path), cast(StudyFacts, {"weights": {}} | facts)


def read_measured(path: Path) -> tuple[MeasuresFile, float]:
    """Return the content of a dataset's measures file, and its iimm.

    Raises ForetuneError, naming the file, if iimm is undefined.
    """
    measured: MeasuresFile = json.loads(Path(path).read_text())
    iimm = measured["measures"].get("iimm")
    if iimm is None:
        detail = measured.get("details", {}).get("iimm")
        reasons = "; ".join(detail["notes"]) if detail else ""
        raise ForetuneError(
            f"{path}: iimm is not known{reasons and f' ({reasons})'}, so there is no forecast"
        )
    return measured, iimm


def select_tasks(
    tasks: pd.DataFrame, facts: StudyFacts, study: Path, measured: MeasuresFile, path: Path
) -> pd.DataFrame:
    """Return the study's tasks of the model that `measured`, the content of the file at `path`.

    Raises ForetuneError if the study has no such model, or has one with other weights.
    """
    model = measured["model"]
    model_tasks = tasks[tasks.model == model]
    if model_tasks.empty:
        models = ", ".join(sorted(set(tasks.model))) or "none"
        raise ForetuneError(f"{path}: {study} has no model {model}; its models: {models}")
    study_weights = facts["weights"].get(model)
    if study_weights is None:
        raise ForetuneError(
            f"{path}: {study} does not record the weights of model {model}; run the study again"
        )
    if study_weights != measured["weights"]:
        raise ForetuneError(
            f"{path}: model {model} is not the one of {study}: the digest of its weights is "
            f"{measured['weights'][:12]}, but {study_weights[:12]} in the study; forecast with "
            f"the study's model, or from a study of this model"
        )
    return model_tasks


def forecast_outcome(x: np.ndarray, y: np.ndarray, at: float, outcome: str) -> dict:
    """Return the line of y on x at a new x: expected, low and high, clipped to OUTCOME_RANGES.

    x, y: (n,), finite, n >= 4, x not constant. `clipped` in the result says whether a limit was
    passed.
    """
    frame = least_squares_line(x, y).get_prediction([[1, at]]).summary_frame(alpha=0.05)
    unlimited = frame[["mean", "obs_ci_lower", "obs_ci_upper"]].to_numpy()[0]
    limited = np.clip(unlimited, *OUTCOME_RANGES[outcome])
    expected, low, high = map(float, limited)
    clipped = bool((limited != unlimited).any())
    return {"expected": expected, "low": low, "high": high, "clipped": clipped}


def best_rival(measures: np.ndarray, y: np.ndarray) -> int | None:
    """Return the row of measures (m, n) with the highest R² with y (n,); None if all are constant.

    R² = (x·y)² / (x·x y·y) for centred x and y; the factor y·y is the same for all rows.
    """
    centred = measures - measures.mean(axis=1, keepdims=True)
    square = np.square(centred).sum(axis=1)
    explained = (centred @ (y - y.mean())) ** 2 / np.where(square > 0, square, np.nan)
    return None if np.isnan(explained).all() else int(np.nanargmax(explained))


def leave_one_out(tasks: pd.DataFrame, outcome: str, names: list[str]) -> dict:
    """Return the mean absolute errors of forecasts of each task from the other tasks.

    loo_error is the error of the line on iimm, and loo_mean_error that of the others' mean
    outcome. loo_rival_error is the error of the line on the rival: the measure of `names`, other
    than iimm, that has the highest R² on the other tasks. It may differ from fold to fold;
    loo_rivals counts how often each was chosen. A measure that lacks a value is no rival. All
    forecasts by lines are clipped to OUTCOME_RANGES.
    """
    y, iimm = tasks[outcome].to_numpy(float), tasks.iimm.to_numpy(float)
    rivals = [
        name for name in names if name != "iimm" and np.isfinite(tasks[name].to_numpy(float)).all()
    ]
    rival_values = tasks[rivals].to_numpy(float).T
    errors: dict[str, list[float]] = {"iimm": [], "mean": [], "rival": []}
    chosen = []
    for i in range(len(y)):
        fold = np.arange(len(y)) != i
        if np.ptp(iimm[fold]) > 0:
            errors["iimm"].append(leave_out_error(iimm, y, i, outcome))
        errors["mean"].append(abs(y[fold].mean() - y[i]))
        best = best_rival(rival_values[:, fold], y[fold]) if rivals else None
        if best is not None:
            errors["rival"].append(leave_out_error(rival_values[best], y, i, outcome))
            chosen.append(rivals[best])
    # A mean over some of the folds cannot be compared with one over all.
    means = {
        name: float(np.mean(values)) if len(values) == len(y) else np.nan
        for name, values in errors.items()
    }
    counts = pd.Series(chosen, dtype=str).value_counts()
    return {
        "loo_error": means["iimm"],
        "loo_mean_error": means["mean"],
        "loo_rival_error": means["rival"],
        "loo_rivals": ", ".join(f"{name} {count}" for name, count in counts.items()),
    }


def leave_out_error(x: np.ndarray, y: np.ndarray, i: int, outcome: str) -> float:
    """Return the absolute error at point i of the line through all other points."""
    fold = np.arange(len(y)) != i
    expected = least_squares_line(x[fold], y[fold]).predict([[1, x[i]]])[0]
    return abs(np.clip(expected, *OUTCOME_RANGES[outcome]) - y[i])


def forecast_datasets(
    study: Path, measures: list[Path], weight: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables of forecasts and of rankings for new datasets.

    study: a study's `results/analysis`; measures: JSON files of (model, dataset), as the rule
    `measure` writes them; weight: of forgetting against gain, see `rank_runs`.

    Raises ForetuneError, naming the file, if the study has no tasks of a file's model, or has one
    with other weights, and if a dataset's iimm is undefined.
    """
    tasks, facts = read_study_results(study)
    rows: list[dict] = []
    errors: dict[tuple, dict] = {}  # the same for all new datasets
    for path in measures:
        measured, iimm = read_measured(path)
        model, dataset = measured["model"], measured["dataset"]
        model_tasks = select_tasks(tasks, facts, study, measured, path)
        same_name = bool((model_tasks.dataset == dataset).any())
        for method, group in model_tasks[model_tasks.dataset != dataset].groupby("method"):
            for outcome in OUTCOME_RANGES:
                finite = np.isfinite(group[["iimm", outcome]].to_numpy(float))
                known = group[finite.all(axis=1)]
                key = (model, method, outcome, tuple(known.dataset))
                if key not in errors and has_enough_datasets(known):
                    errors[key] = leave_one_out(known, outcome, facts["measures"])
                rows.append(
                    {"dataset": dataset, "model": model, "method": method, "outcome": outcome,
                     "n_train": measured["n"], "iimm": iimm,
                     **forecast_pair(known, outcome, iimm, same_name), **errors.get(key, {})}
                )  # fmt: skip
    frame = pd.DataFrame(rows, columns=FORECAST_COLUMNS)
    types = dict.fromkeys(FORECAST_NUMBERS, "float64") | dict.fromkeys(FORECAST_FLAGS, "boolean")
    frame = frame.astype(types)
    return frame, rank_runs(frame, weight)


def has_enough_datasets(tasks: pd.DataFrame) -> bool:
    """Return whether a line on iimm can be fitted to the tasks and tested by leaving one out."""
    return len(tasks) >= MIN_DATASETS and np.ptp(tasks.iimm.to_numpy(float)) > 0


def forecast_pair(known: pd.DataFrame, outcome: str, at: float, same_name: bool) -> dict:
    """Return the forecast of an outcome at a new iimm, or a note that says why there is none.

    known: the study's tasks of one model and method with a known outcome; same_name: whether a
    dataset of the new one's name was removed from them.
    """
    x, y = known.iimm.to_numpy(float), known[outcome].to_numpy(float)
    row: dict[str, Any] = {"n": len(known)}
    notes = []
    if same_name:
        notes.append("the study's dataset of the same name is left out")
    if len(known) < MIN_DATASETS:
        notes.append(
            f"n = {len(known)}: too few datasets with this outcome for a forecast, which needs "
            f"at least {MIN_DATASETS}"
        )
    elif not has_enough_datasets(known):
        notes.append("IIMM is the same for every dataset of the study, so there is no line")
    else:
        low, high = float(x.min()), float(x.max())
        outside = not low <= at <= high
        row |= {"study_low": low, "study_high": high, "study_mean": y.mean(), "outside": outside}
        row |= forecast_outcome(x, y, at, outcome)
        if outside:
            notes.append("IIMM lies outside the study's range, so the line is extrapolated")
    return row | {"note": "; ".join(notes)}


def rank_runs(forecasts: pd.DataFrame, weight: float) -> pd.DataFrame:
    """Return the models and methods of each dataset, the best first.

    score = (1 - weight) gain + weight ood_change of the expected values, so that weight 0 ranks
    by gain alone and 1 by the least forgetting. A run comes last, without a rank, if a part of
    its score that has a weight is unknown: a probe has no head for other tasks' classes, so its
    ood_change is never known.
    """
    key = ["dataset", "model", "method"]
    wide = forecasts.pivot(index=key, columns="outcome", values="expected")
    wide = wide.reindex(columns=[GAIN, "ood_change"]).reset_index()
    shares = {GAIN: 1 - weight, "ood_change": weight}
    wide["score"] = sum(share * wide[name] for name, share in shares.items() if share)
    wide["rank"] = wide.groupby("dataset").score.rank(ascending=False, method="min").astype("Int64")
    note = "not ranked, because a part of its score is not known"
    wide["note"] = np.where(wide.score.isna(), note, "")
    return wide.assign(weight=float(weight))[RANKING_COLUMNS].sort_values(
        ["dataset", "rank", "model", "method"], ignore_index=True
    )
