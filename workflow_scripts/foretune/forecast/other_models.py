"""Forecasts of the pairs that a half-done study lacks, from the same dataset on other models.

A predictor joins those of forecast/candidates.py: how far the outcome of other models on the
dataset lies above their average one. Its error is measured by leaving out one (model, dataset) at a
time, with all of its methods, because the outcomes of the dataset on other models are known. The
predictors of all other rows are then computed without it.
"""

import numpy as np
import pandas as pd

from foretune.forecast.candidates import PROBES, Candidate
from foretune.forecast.forecaster import OUTCOME_KINDS, Forecaster, HoldOut, fit_forecasters

SWEEPS = 20  # of the averages over runs and datasets, which are fitted in turns


def name_others(outcome: str) -> str:
    """Return the name of the predictor that other models' outcomes of a dataset give."""
    return f"others_{outcome}"


def add_others(rows: pd.DataFrame, study: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """Add two columns to rows that have model, method and dataset.

    `others_{outcome}` is the mean over the runs of other models by the same method of the
    dataset's outcome minus the run's level; 0 if there is no such run. `others` counts the runs.
    Levels of runs and of datasets are fitted together, so that it does not matter which datasets a
    run has. Without the method, the accuracies by other methods count: what is hard for one is
    hard for all. What methods forget differs too much.

    Args:
        study: rows with model, method, dataset, run and the outcome.
    """
    datasets, places = np.unique(study.dataset.to_numpy(str), return_inverse=True)
    runs = study.drop_duplicates("run").sort_values("run")
    columns = np.searchsorted(runs.run.to_numpy(str), study.run.to_numpy(str))
    table = np.full((len(datasets) + 1, len(runs)), np.nan)  # the last row is of new datasets
    table[places, columns] = study[outcome].to_numpy(float)
    above = np.nan_to_num(table - fit_levels(table))
    own = np.searchsorted(datasets, rows.dataset.to_numpy(str))
    own[~rows.dataset.isin(datasets).to_numpy()] = len(datasets)
    models, methods = rows.model.to_numpy(str)[:, None], rows.method.to_numpy(str)[:, None]
    others = np.isfinite(table[own]) & (models != runs.model.to_numpy(str))
    alike = others & (methods == runs.method.to_numpy(str))
    either = others if outcome == "accuracy" else alike
    used = np.where(alike.any(axis=1)[:, None], alike, either)
    counts = used.sum(axis=1)
    means = (used * above[own]).sum(axis=1) / np.maximum(counts, 1)
    return rows.assign(**{name_others(outcome): means, "others": counts})


def fit_levels(table: np.ndarray) -> np.ndarray:
    """Return the level (R,) of each run: a value is a run's level plus a dataset's.

    The datasets' levels average 0. table: (D, R), NaN if unknown; every run has a value.
    """
    known = np.isfinite(table)
    values, by_dataset = np.where(known, table, 0), np.maximum(known.sum(axis=1), 1)
    effects = np.zeros(len(table))
    for _ in range(SWEEPS):
        levels = (values - known * effects[:, None]).sum(axis=0) / known.sum(axis=0)
        effects = (values - known * levels).sum(axis=1) / by_dataset
        effects -= effects.mean()
    return levels


def list_pair_candidates(outcome: str) -> tuple[Candidate, ...]:
    """Return the candidates for pairs whose dataset has the outcome on another model."""
    others = name_others(outcome)
    return (
        *OUTCOME_KINDS[outcome].candidates, Candidate((others,)),
        *(Candidate((others, name)) for name in (*PROBES, "train_zero_shot_accuracy")),
    )  # fmt: skip


PAIRS = HoldOut(("model", "dataset"), list_pair_candidates, add_others)


def fit_pair_forecasters(study: pd.DataFrame, outcome: str) -> dict[str, Forecaster]:
    """Choose and fit a candidate for an outcome of each method, see `fit_forecasters`.

    Rows whose dataset no other model has are left out. A method needs MIN_DATASETS others.
    """
    known = study[np.isfinite(study[outcome].astype(float))]
    shared = known[add_others(known, known, outcome).others > 0]
    return fit_forecasters(shared, outcome, PAIRS)
