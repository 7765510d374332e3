"""Forecast the other half of a half-done study: each model, method and dataset without an outcome.

If another model has the dataset's outcome, the forecast may rest on it (forecast/other_models.py),
and otherwise on other datasets only, as that of a new dataset.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from foretune.analysis.pilots import PILOT_ACCURACY
from foretune.analysis.study_tables import StudyTasks
from foretune.forecast.forecast import (
    CANDIDATE_COLUMNS,
    FORECAST_COLUMNS,
    add_notes,
    complete_cells,
    forecast_outcome,
    list_candidates,
    make_forecast_table,
)
from foretune.forecast.forecaster import OUTCOME_KINDS, Forecaster, fit_forecasters
from foretune.forecast.other_models import add_others, fit_pair_forecasters, name_others

# What was left out to measure the error of a forecast: the pair, or all pairs of its dataset.
LEFT_OUT = ("pair", "dataset")
PAIR_COLUMNS = [*FORECAST_COLUMNS, "left_out"]
Forecasters = dict[str, dict[str, Forecaster]]  # by outcome and method


@dataclass(frozen=True)
class PairTables:
    """The tables `pairs`, of PAIR_COLUMNS, and `pair_candidates`.

    pair_candidates has the columns CANDIDATE_COLUMNS and left_out.
    """

    pairs: pd.DataFrame
    pair_candidates: pd.DataFrame


def list_missing(
    tasks: pd.DataFrame, runs: Sequence[tuple[str, str]], datasets: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Return each (model, method, dataset) of a study that has no accuracy."""
    done = set(zip(tasks.model, tasks.method, tasks.dataset, strict=True))
    return [(*run, dataset) for run in runs for dataset in datasets if (*run, dataset) not in done]


def forecast_pairs(
    study: StudyTasks, runs: Sequence[tuple[str, str]], datasets: Sequence[str]
) -> PairTables:
    """Forecast each pair of a study that has no outcome.

    Args:
        study: with the outcomes that are known.
        runs: all pairs (model, method) of the study.
        datasets: names of all its datasets.
    """
    tasks = study.tasks[study.tasks.wise_ft == 1].drop(columns="wise_ft").reset_index(drop=True)
    tasks["run"] = tasks.model + "/" + tasks.method
    zero_shot = study.outcomes[
        (study.outcomes.method == "zero_shot") & (study.outcomes.split == "test")
    ].set_index(["model", "evaluated_on"])["accuracy"]
    pilots = study.pilots.set_index(["model", "method", "dataset"])[PILOT_ACCURACY]
    measured = study.measures.set_index(["model", "dataset"])
    diverged = study.missing.set_index(["model", "method", "dataset"]).note
    by_pair = {name: fit_pair_forecasters(tasks, name) for name in OUTCOME_KINDS}
    # Datasets that have no outcome share their forecasters.
    by_dataset: dict[str | None, Forecasters] = {}
    rows: list[dict] = []
    for model, method, dataset in list_missing(tasks, runs, datasets):
        left_out = dataset if (tasks.dataset == dataset).any() else None
        if left_out not in by_dataset:
            known = tasks[tasks.dataset != dataset]
            by_dataset[left_out] = {name: fit_forecasters(known, name) for name in OUTCOME_KINDS}
        key = model, dataset
        task = measured.loc[key] if key in measured.index else pd.Series(dtype=float)
        values: dict = task.reindex(study.names).to_dict()
        values[PILOT_ACCURACY] = pilots.get((model, method, dataset))
        cells, used = {}, {}
        for outcome in OUTCOME_KINDS:
            new = pd.DataFrame([{"model": model, "method": method, "dataset": dataset}])
            known = tasks[np.isfinite(tasks[outcome].astype(float))]
            new = add_others(new, known, outcome)
            others = {name_others(outcome): new[name_others(outcome)][0]}
            shared = new.others[0] > 0 and method in by_pair[outcome]
            forecasters = by_pair if shared else by_dataset[left_out]
            used[outcome] = forecasters[outcome].get(method)
            n = int(((known.model == model) & (known.method == method)).sum())
            cells[outcome] = forecast_outcome(
                values | others, f"{model}/{method}", outcome, used[outcome], n
            ) | {"left_out": LEFT_OUT[not shared]}
        images = task.get("n_train")
        shared_columns = {
            "dataset": dataset, "model": model, "method": method,
            "n_train": None if images is None else int(images),
            "zero_shot": float(zero_shot.get((model, dataset), np.nan)),
        }  # fmt: skip
        completed = complete_cells(shared_columns, cells, used["accuracy"])
        if (model, method, dataset) in diverged.index:
            add_notes(
                completed, [f"{dataset} was fine-tuned, but {diverged[model, method, dataset]}"]
            )
        rows += completed
    left_out_columns = pd.DataFrame(rows, columns=PAIR_COLUMNS).left_out
    pairs = make_forecast_table(rows).astype({"n_train": "Int64"}).assign(left_out=left_out_columns)
    candidates = [
        list_candidates(forecasters).assign(left_out=unit)
        for unit, forecasters in zip(
            LEFT_OUT, (by_pair, next(iter(by_dataset.values()), {})), strict=True
        )
    ]
    columns = [*CANDIDATE_COLUMNS, "left_out"]
    return PairTables(pairs, pd.concat(candidates, ignore_index=True)[columns])
