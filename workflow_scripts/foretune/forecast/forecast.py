"""Forecast what fine-tuning would do to a dataset, from a rehearsal and the results of a study.

Accuracy and change on other tasks are forecast (see forecast/forecaster.py). Gain over zero-shot
error follows from the accuracy, since the zero-shot accuracy is known from the dataset's labels.
What is trained on cached embeddings is not forecast but fitted and tested on the dataset itself.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from foretune.analysis.outcomes import GAIN
from foretune.analysis.study_tables import gain_over_zero_shot_error
from foretune.core.errors import ForetuneError
from foretune.core.parquet import read_metadata
from foretune.forecast.candidates import IIMM_LINE, MEAN
from foretune.forecast.forecaster import MIN_DATASETS, OUTCOME_KINDS, Forecaster, fit_forecasters
from foretune.forecast.learning_curve import extrapolate
from foretune.forecast.ranking import RANKING_COLUMNS, rank_runs
from foretune.forecast.rehearsal import PREDICTORS, RehearsalFile

OUTCOMES = ("accuracy", GAIN, "ood_change", "shifted_change")
FORECAST_COLUMNS = [
    "dataset", "model", "method", "outcome", "n_train", "zero_shot", "expected", "low", "high",
    "predictor", "measured", "n", "loo_error", "loo_mean_error", "loo_iimm_error", "note",
]  # fmt: skip
FORECAST_NUMBERS = [
    "zero_shot", "expected", "low", "high", "loo_error", "loo_mean_error", "loo_iimm_error",
]  # fmt: skip
CANDIDATE_COLUMNS = ["method", "outcome", "candidate", "loo_error", "n", "chosen"]
LEARNING_COLUMNS = ["dataset", "model", "method", "times", "n", "expected", "low", "high"]


class StudyFacts(TypedDict):
    """Metadata of a study's table of tasks."""

    measures: list[str]
    weights: dict[str, str]  # digest of each model's weights
    sources: NotRequired[dict[str, Any]]  # of the bundled study: digests of what it was made from


@dataclass(frozen=True)
class NewTask:
    """A (model, dataset) that is not fine-tuned, with everything that forecasts may use.

    values: the measures and predictors by name; evaluations: the table of tests of the model on
    the dataset itself, zero-shot and by what was fitted on its embeddings; notes: of the measures.
    """

    model: str
    dataset: str
    weights: str
    n_train: int
    values: dict[str, float | None]
    rehearsal: RehearsalFile
    evaluations: pd.DataFrame
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ForecastTables:
    """The tables of forecasts; their columns are the …_COLUMNS of forecast.py and ranking.py."""

    forecasts: pd.DataFrame
    candidates: pd.DataFrame
    rankings: pd.DataFrame
    learning: pd.DataFrame


def read_study_results(folder: Path) -> tuple[pd.DataFrame, StudyFacts]:
    """Return a study's tasks and their metadata.

    folder: the study's `results/analysis`. Raises ForetuneError, naming the file, if there is no
    study or if it was not rehearsed.
    """
    path = Path(folder) / "tasks.parquet"
    facts = read_metadata(path)
    tasks = pd.read_parquet(path)
    missing = [name for name in ("n_test", *PREDICTORS) if name not in tasks]
    if missing:
        raise ForetuneError(
            f"{path}: the study lacks {', '.join(missing)}, which forecasts need; run it again"
        )
    tasks["run"] = tasks.model + "/" + tasks.method
    return tasks, cast(StudyFacts, {"weights": {}} | facts)


def read_new_tasks(
    measures: list[Path], rehearsals: list[Path], evaluations: list[Path]
) -> list[NewTask]:
    """Read what is known of each (model, dataset) from its files, one per measures file."""
    tested = pd.concat([pd.read_parquet(path) for path in evaluations], ignore_index=True)
    rehearsed: dict[tuple, RehearsalFile] = {}
    for path in rehearsals:
        rehearsal: RehearsalFile = json.loads(Path(path).read_text())
        rehearsed[rehearsal["model"], rehearsal["dataset"]] = rehearsal
    tasks = []
    for path in measures:
        measured = json.loads(Path(path).read_text())
        key = measured["model"], measured["dataset"]
        own = tested[(tested.model == key[0]) & (tested.evaluated_on == key[1])]
        tasks.append(
            NewTask(
                *key, measured["weights"], measured["n"],
                measured["measures"] | rehearsed[key]["measures"], rehearsed[key],
                own[own.split == "test"], tuple(measured.get("notes", ())),
            )
        )  # fmt: skip
    return tasks


def check_model(task: NewTask, tasks: pd.DataFrame, facts: StudyFacts, study: Path) -> None:
    """Raise ForetuneError if the study has no such model, or has one with other weights."""
    if task.model not in set(tasks.model):
        models = ", ".join(sorted(set(tasks.model))) or "none"
        raise ForetuneError(f"{study}: has no model {task.model}; its models: {models}")
    study_weights = facts["weights"].get(task.model)
    if study_weights is None:
        raise ForetuneError(
            f"{study}: does not record the weights of model {task.model}; run the study again"
        )
    if study_weights != task.weights:
        raise ForetuneError(
            f"{task.dataset}: model {task.model} is not the one of {study}: the digest of its "
            f"weights is {task.weights[:12]}, but {study_weights[:12]} in the study; forecast with "
            f"the study's model, or from a study of this model"
        )


def forecast_datasets(study: Path, new: list[NewTask], weight: float) -> ForecastTables:
    """Return the tables of forecasts for new datasets.

    study: a study's `results/analysis`; weight: of forgetting against accuracy, see `rank_runs`.

    Raises ForetuneError, naming the file, if the study lacks a model, or has one with other
    weights.
    """
    tasks, facts = read_study_results(study)
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
    cells: dict[str, dict] = {}
    for outcome in OUTCOME_KINDS:
        if outcome == "accuracy" and method in tests.index:
            cells[outcome] = describe_test(float(tests.accuracy[method]), int(tests.n[method]))
        else:
            forecaster = forecasters[outcome].get(method)
            n = int(np.isfinite(group[outcome].astype(float)).sum())
            cells[outcome] = forecast_outcome(
                task, f"{task.model}/{method}", outcome, forecaster, n
            )
    accuracy = cells["accuracy"]
    limits = {name: accuracy.get(name, np.nan) for name in ("expected", "low", "high")}
    gains = {name: float(gain_over_zero_shot_error(v, zero_shot)) for name, v in limits.items()}
    cells[GAIN] = accuracy | gains | baseline_gain_errors(forecasters["accuracy"].get(method))
    key = {
        "dataset": task.dataset, "model": task.model, "method": method, "n_train": task.n_train,
        "zero_shot": zero_shot,
    }  # fmt: skip
    return [key | {"outcome": outcome, "measured": False} | cells[outcome] for outcome in OUTCOMES]


def describe_test(accuracy: float, n: int) -> dict:
    """Return the cell of an accuracy that was measured on n test images."""
    low, high = proportion_confint(round(accuracy * n), n, method="wilson")
    return {
        "expected": accuracy, "low": float(low), "high": float(high), "predictor": "measured",
        "measured": True, "n": 0, "note": "",
    }  # fmt: skip


def forecast_outcome(
    task: NewTask, run: str, outcome: str, forecaster: Forecaster | None, n: int
) -> dict:
    """Return the cell of an outcome that is forecast, or a note that says why it is not.

    n: the study's datasets with this outcome for this model and method.
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
    unknown = [name for name in names if task.values.get(name) is None]
    if unknown:
        return cell | {"note": f"{', '.join(unknown)} is not known, so there is no forecast"}
    new = pd.DataFrame([{"run": run, **{name: task.values[name] for name in names}}])
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
