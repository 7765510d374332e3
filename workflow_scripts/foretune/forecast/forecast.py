"""Forecast what fine-tuning would do to a dataset, from a rehearsal and the results of a study.

Accuracy and change on other tasks are forecast (see forecast/forecaster.py). Gain over zero-shot
error follows from the accuracy, since the zero-shot accuracy is known from the dataset's labels.
What is trained on cached embeddings is not forecast but fitted and tested on the dataset itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from foretune.analysis.formatting import is_known
from foretune.analysis.outcomes import GAIN
from foretune.analysis.pilots import PILOT_ACCURACY
from foretune.analysis.study_tables import gain_over_zero_shot_error
from foretune.forecast.candidates import IIMM_LINE, MEAN
from foretune.forecast.forecaster import (
    MIN_DATASETS,
    OUTCOME_KINDS,
    Forecaster,
    can_have_pilot,
    fit_forecasters,
)
from foretune.forecast.inputs import NewTask, check_model, read_study_results
from foretune.forecast.learning_curve import extrapolate
from foretune.forecast.ranking import RANKING_COLUMNS, rank_runs

OUTCOMES = ("accuracy", GAIN, "ood_change", "shifted_change")
FORECAST_COLUMNS = [
    "dataset", "model", "method", "outcome", "n_train", "zero_shot", "expected", "low", "high",
    "predictor", "measured", "n", "loo_error", "loo_mean_error", "loo_iimm_error", "pilot_seconds",
    "note",
]  # fmt: skip
FORECAST_NUMBERS = [
    "zero_shot", "expected", "low", "high", "loo_error", "loo_mean_error", "loo_iimm_error",
    "pilot_seconds",
]  # fmt: skip
CANDIDATE_COLUMNS = ["method", "outcome", "candidate", "loo_error", "n", "chosen"]
LEARNING_COLUMNS = ["dataset", "model", "method", "times", "n", "expected", "low", "high"]


@dataclass(frozen=True)
class ForecastTables:
    """The tables of forecasts; their columns are the …_COLUMNS of forecast.py and ranking.py."""

    forecasts: pd.DataFrame
    candidates: pd.DataFrame
    rankings: pd.DataFrame
    learning: pd.DataFrame


def forecast_datasets(study: Path, new: list[NewTask], weight: float) -> ForecastTables:
    """Return the tables of forecasts for new datasets.

    study: a study's `results/analysis`; weight: of forgetting against accuracy, see `rank_runs`.

    Raises ForetuneError, naming the file, if the study lacks a model, or has one with other
    weights.
    """
    tasks, facts = read_study_results(study)
    unused = find_unused_pilots(tasks, new)
    if unused is not None:
        tasks = tasks.drop(columns=PILOT_ACCURACY, errors="ignore")
    rows: list[dict] = []
    rankings, learning = [], []
    candidates = pd.DataFrame(columns=CANDIDATE_COLUMNS)
    # Datasets that are not in the study share its forecasters.
    fitted: dict[str | None, dict[str, dict[str, Forecaster]]] = {}
    for dataset in dict.fromkeys(task.dataset for task in new):
        known = tasks[tasks.dataset != dataset]  # a dataset does not forecast itself
        left_out = dataset if len(known) < len(tasks) else None
        if left_out not in fitted:
            fitted[left_out] = {name: fit_forecasters(known, name) for name in OUTCOME_KINDS}
        forecasters = fitted[left_out]
        candidates = candidates if len(candidates) else list_candidates(forecasters)
        own = [task for task in new if task.dataset == dataset]
        own_rows: list[dict] = []
        for task in own:
            check_model(task, tasks, facts, study)
            for method, group in known[known.model == task.model].groupby("method"):
                cells = forecast_run(task, str(method), group, forecasters)
                add_notes(cells, task.notes)
                if unused and can_have_pilot(str(method)):
                    add_notes(cells, [describe_unused_pilot(task, str(method), unused)])
                if left_out:
                    add_notes(cells, ["the study's dataset of the same name is left out"])
                own_rows += cells
                learning.append(extrapolate_run(task, cells))
        rankings.append(rank_runs(make_forecast_table(own_rows), weight, forecasters))
        rows += own_rows
    return ForecastTables(
        make_forecast_table(rows),
        candidates,
        pd.concat(rankings, ignore_index=True)[RANKING_COLUMNS],
        pd.concat(learning, ignore_index=True)[LEARNING_COLUMNS],
    )


def find_unused_pilots(tasks: pd.DataFrame, new: list[NewTask]) -> str | None:
    """Return why pilots are no predictor of the forecasts; None if they are.

    The reason is empty if the new datasets have no pilots. All of them and all of the study's
    tasks must have pilots of as many steps.
    """
    pilots = [task.pilots for task in new if task.pilots is not None]
    if not pilots:
        return ""
    trained = tasks[tasks.method.map(can_have_pilot).astype(bool)]
    if PILOT_ACCURACY not in tasks or trained[PILOT_ACCURACY].isna().any():
        return "the study has no pilots to compare it with"
    steps = set(pd.concat(pilots).pilot_steps)
    studied = set(trained.pilot_steps.astype(int))
    if steps != studied:
        return f"the study's pilots have {', '.join(map(str, sorted(studied)))} steps"
    has = {(p.model, p.method) for frame in pilots for p in frame.itertuples()}
    runs = {(task.model, method) for task in new
            for method in trained.method[trained.model == task.model]}  # fmt: skip
    return None if runs <= has else "some methods of the study have no pilot here"


def describe_unused_pilot(task: NewTask, method: str, reason: str) -> str:
    """Return the note on a pilot that is no predictor; empty if there is no pilot."""
    accuracy = get_pilot(task, method)
    if accuracy is None:
        return ""
    return f"a pilot reached {accuracy:.2f}, which the forecast does not use: {reason}"


def get_pilot(task: NewTask, method: str, column: str = PILOT_ACCURACY) -> float | None:
    """Return a column of a method's pilot; None if there was none."""
    if task.pilots is None:
        return None
    values = task.pilots[column][task.pilots.method == method]
    return float(values.iloc[0]) if len(values) else None


def make_forecast_table(rows: list[dict]) -> pd.DataFrame:
    """Return rows of forecasts as a table of fixed types."""
    frame = pd.DataFrame(rows, columns=FORECAST_COLUMNS)
    return frame.astype(dict.fromkeys(FORECAST_NUMBERS, "float64") | {"measured": bool})


def add_notes(cells: list[dict], notes: Sequence[str]) -> None:
    """Append notes to rows of forecasts."""
    for cell in cells:
        cell["note"] = "; ".join(filter(None, (cell["note"], *notes)))


def forecast_run(
    task: NewTask, method: str, group: pd.DataFrame, forecasters: dict[str, dict[str, Forecaster]]
) -> list[dict]:
    """Return the rows of the outcomes of one model and method.

    group: the study's rows of this model and method.
    """
    tests = task.evaluations.set_index("method")
    zero_shot = float(tests.accuracy["zero_shot"])
    values = task.values | {PILOT_ACCURACY: get_pilot(task, method)}
    cells: dict[str, dict] = {}
    for outcome in OUTCOME_KINDS:
        if outcome == "accuracy" and method in tests.index:
            cells[outcome] = describe_test(float(tests.accuracy[method]), int(tests.n[method]))
        else:
            forecaster = forecasters[outcome].get(method)
            n = int(np.isfinite(group[outcome].astype(float)).sum())
            cells[outcome] = forecast_outcome(
                values, f"{task.model}/{method}", outcome, forecaster, n
            )
    key = {
        "dataset": task.dataset, "model": task.model, "method": method, "n_train": task.n_train,
        "zero_shot": zero_shot, "pilot_seconds": get_pilot(task, method, "pilot_seconds"),
    }  # fmt: skip
    return complete_cells(key, cells, forecasters["accuracy"].get(method))


def complete_cells(
    key: dict[str, Any], cells: dict[str, dict], forecaster: Forecaster | None
) -> list[dict]:
    """Return the rows of all outcomes, of which the gain follows from the accuracy.

    key: the columns that the rows share, with the zero-shot accuracy; forecaster: of the accuracy.
    """
    accuracy = cells["accuracy"]
    limits = {name: accuracy.get(name, np.nan) for name in ("expected", "low", "high")}
    zero_shot = key["zero_shot"]
    gains = {name: float(gain_over_zero_shot_error(v, zero_shot)) for name, v in limits.items()}
    gain = accuracy | gains | baseline_gain_errors(forecaster)
    return [
        key | {"outcome": outcome, "measured": False} | (cells | {GAIN: gain})[outcome]
        for outcome in OUTCOMES
    ]


def describe_test(accuracy: float, n: int) -> dict:
    """Return the cell of an accuracy that was measured on n test images."""
    low, high = proportion_confint(round(accuracy * n), n, method="wilson")
    return {
        "expected": accuracy, "low": float(low), "high": float(high), "predictor": "measured",
        "measured": True, "n": 0, "note": "",
    }  # fmt: skip


def forecast_outcome(
    values: dict[str, float | None], run: str, outcome: str, forecaster: Forecaster | None, n: int
) -> dict:
    """Return the cell of an outcome that is forecast, or a note that says why it is not.

    values: the predictors by name; n: the study's datasets with this outcome for this model and
    method.
    """
    if forecaster is None:
        # An outcome that no or hardly any dataset has, such as a probe's forgetting, needs no note.
        is_main = n > 0 and outcome == "accuracy"
        note = f"n = {n}: too few datasets for a forecast, which needs {MIN_DATASETS}"
        return {"n": n, "predictor": "", "note": note if is_main else ""}
    cell: dict[str, Any] = {
        "n": n, "predictor": str(forecaster.chosen), "note": "", "loo_error": forecaster.error,
        "loo_mean_error": forecaster.errors.get(MEAN, np.nan),
        "loo_iimm_error": forecaster.errors.get(IIMM_LINE, np.nan),
    }  # fmt: skip
    names = forecaster.chosen.predictors
    unknown = [name for name in names if not is_known(values.get(name))]
    if unknown:
        return cell | {"note": f"{', '.join(unknown)} is not known, so there is no forecast"}
    new = pd.DataFrame([{"run": run, **{name: values[name] for name in names}}])
    cell |= forecaster.predict(new).iloc[0].to_dict()
    if not forecaster.chosen.itself:
        ranges = forecaster.pool[list(names)].agg(["min", "max"])
        outside = [
            name for name in names if not ranges[name]["min"] <= new[name][0] <= ranges[name]["max"]
        ]
        if outside:
            cell["note"] = f"{', '.join(outside)} lies outside the study's range"
    return cell


def baseline_gain_errors(forecaster: Forecaster | None) -> dict[str, float]:
    """Return the errors of gains that follow from left-out forecasts of the accuracy."""
    if forecaster is None:
        return {}
    study = forecaster.study
    truth = study[GAIN].to_numpy(float)
    gains = gain_over_zero_shot_error(forecaster.left_out, study.zero_shot_accuracy.to_numpy(float))
    means = study.groupby("dataset")[GAIN].transform("mean")
    others = (study[GAIN].sum() - means * study.groupby("dataset")[GAIN].transform("size")) / (
        len(study) - study.groupby("dataset")[GAIN].transform("size")
    )
    return {
        "loo_error": float(np.nanmean(np.abs(gains - truth))),
        "loo_mean_error": float(np.nanmean(np.abs(others - truth))),
        "loo_iimm_error": np.nan,
    }


def extrapolate_run(task: NewTask, cells: list[dict]) -> pd.DataFrame:
    """Return the rows of the learning curve of one model and method."""
    accuracy = next(cell for cell in cells if cell["outcome"] == "accuracy")
    expected = accuracy.get("expected", np.nan)
    curve = extrapolate(expected, task.rehearsal["learning_curve"], task.n_train)
    key = {name: accuracy[name] for name in ("dataset", "model", "method")}
    return curve[curve.expected.notna()].assign(**key)


def list_candidates(forecasters: dict[str, dict[str, Forecaster]]) -> pd.DataFrame:
    """Return a row per (method, outcome, candidate) with its error, each dataset left out."""
    rows = [
        {
            "method": method, "outcome": outcome, "candidate": str(candidate), "loo_error": error,
            "n": forecaster.n, "chosen": candidate == forecaster.chosen,
        }
        for outcome, by_method in forecasters.items()
        for method, forecaster in by_method.items()
        for candidate, error in sorted(forecaster.errors.items(), key=lambda item: item[1])
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=CANDIDATE_COLUMNS)
