"""Pairs that have no result, and why: every trial diverged, or the study is not done yet."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import pandas as pd

from foretune.analysis.measure_tables import MeasuresFile
from foretune.core.entries import Selection
from foretune.core.files import read_json
from foretune.training.trials import describe_divergence, read_selection_file

MISSING_COLUMNS = ["model", "method", "dataset", "note"]
NOT_TRAINED, NOT_TESTED = "not trained yet", "trained, not tested yet"
NOT_MEASURED = "not measured yet"
NAMED_DATASETS = 4  # a line names no more datasets than these
Pair = tuple[str, str, str]  # of a model, a method and a dataset


def tabulate_missing(runs: Iterable[Selection], unfinished: Sequence[dict] = ()) -> pd.DataFrame:
    """Return one row per pair of a run and a dataset that has no result, with the reason.

    runs: the selected trials; unfinished: see `list_unfinished`.
    """
    rows = [
        {"model": run["model"], "method": run["method"], "dataset": run["dataset"],
         "note": describe_divergence(run)}
        for run in runs if run.get("diverged")
    ]  # fmt: skip
    return pd.DataFrame([*rows, *unfinished], columns=MISSING_COLUMNS).astype(str)


def list_unfinished(
    study: dict, tested: Collection[Pair], selections: list[Path], measures: list[Path]
) -> list[dict[str, str]]:
    """Return what a study that still runs has no result of, as rows of the table `missing`.

    Args:
        study: checked config.
        tested: pairs whose accuracy is known.
        selections: JSON files of the selected trials.
        measures: JSON files of measures. A task that has none gets a row with an empty method.
    """
    trained = {
        (run["model"], run["method"], run["dataset"]): run
        for run in map(read_selection_file, selections)
    }
    files = [read_json(path, MeasuresFile) for path in measures]
    measured = {(file.get("model"), file.get("dataset")) for file in files}
    rows = [
        (model, "", dataset, NOT_MEASURED)
        for model in study["models"]
        for dataset in study["datasets"]
        if (model, dataset) not in measured
    ]
    for method, recipe in ({} if "outcomes" in study else study["methods"]).items():
        for model in recipe["models"]:
            for dataset in study["datasets"]:
                pair = model, method, dataset
                run = trained.get(pair)
                if pair not in tested and not (run and run.get("diverged")):
                    rows.append((*pair, NOT_TESTED if run else NOT_TRAINED))
    return [dict(zip(MISSING_COLUMNS, row, strict=True)) for row in rows]


def describe_missing(rows: Sequence[dict[str, str]]) -> list[str]:
    """Return a line for the rows of each model, method and reason."""
    datasets: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        datasets.setdefault((row["model"], row["method"], row["note"]), []).append(row["dataset"])
    return [
        ", ".join(filter(None, [model, method]))
        + f" on {', '.join(names) if len(names) <= NAMED_DATASETS else f'{len(names)} datasets'}"
        + f": {note}"
        for (model, method, note), names in datasets.items()
    ]
