"""Measures joined with outcomes, once: tidy tables, correlations and fits."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from foretune.analysis.findings import answer_findings, collect_evidence
from foretune.analysis.measure_tables import tabulate_curves, tabulate_measures
from foretune.analysis.paper_tables import format_markdown, make_paper_tables
from foretune.analysis.statistics import pooled_fits, study_statistics
from foretune.core.files import atomic_write, write_json
from foretune.core.parquet import write_parquet
from foretune.evaluation.scores import DRIFT_SCHEMA

WISE_FT = ("gain_over_zero_shot_error", "ood_change", "shifted_change")


def read_tables(paths: list[Path]) -> pd.DataFrame:
    """The rows of Parquet files of one schema, with its types even where a file has only nulls."""
    return pa.concat_tables(pq.read_table(path) for path in paths).to_pandas()


def write_tables(frame: pd.DataFrame, output: Path, metadata: dict) -> None:
    """The same table as Parquet and as CSV beside it."""
    write_parquet(pa.Table.from_pandas(frame, preserve_index=False), output, metadata)
    with atomic_write(output.with_suffix(".csv")) as beside:
        frame.to_csv(beside, index=False)


def join_outcomes(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Add to every evaluation its model's zero-shot accuracy on the same test."""
    keys = ["model", "evaluated_on", "split"]
    zero_shot = evaluations[evaluations.method == "zero_shot"].set_index(keys)["accuracy"]
    return evaluations.join(zero_shot.rename("zero_shot_accuracy"), on=keys)


def gain_over_zero_shot_error(accuracy, zero_shot):
    """(accuracy - zero_shot) / (1 - zero_shot); NaN where the zero-shot error is 0."""
    error = 1 - zero_shot
    return (accuracy - zero_shot) / np.where(error == 0, np.nan, error)


def summarize_tasks(outcomes: pd.DataFrame, selected: pd.DataFrame, measures: pd.DataFrame):
    """A row for each (model, method, dataset, wise_ft): what it gained, forgot, and measures.

    `ood_change` and `shifted_change` are means of accuracy minus zero-shot accuracy: over the
    other datasets' own tests, and over the shifted tests of the dataset itself; NaN without any.
    """
    tuned = outcomes[outcomes.method != "zero_shot"]
    same, plain = tuned.trained_on == tuned.evaluated_on, tuned.split == "test"
    shifted = tuned[same & ~plain]
    # Two datasets of which one's test is a shifted test of the other are the same task.
    tests = set(zip(tuned.evaluated_on[plain], tuned.test_digest[plain], strict=True))
    twins = {
        frozenset((dataset, other))
        for dataset, digest in zip(shifted.trained_on, shifted.test_digest, strict=True)
        for other, test in tests
        if test == digest
    }
    pairs = map(frozenset, zip(tuned.trained_on, tuned.evaluated_on, strict=True))
    others = tuned[~same & plain & np.array([pair not in twins for pair in pairs], dtype=bool)]
    keys = ["model", "method", "wise_ft", "trained_on"]

    def change(rows: pd.DataFrame, name: str) -> pd.Series:
        gained = rows.accuracy - rows.zero_shot_accuracy
        return gained.groupby([rows[k] for k in keys]).mean().rename(name)

    tasks = tuned[same & plain].join(change(others, "ood_change"), on=keys)
    tasks = tasks.join(change(shifted, "shifted_change"), on=keys)
    tasks["gain_over_zero_shot_error"] = gain_over_zero_shot_error(
        tasks.accuracy, tasks.zero_shot_accuracy
    )
    tasks = tasks.rename(columns={"trained_on": "dataset"})
    columns = ["model", "method", "dataset", "wise_ft", "chance", "zero_shot_accuracy", "accuracy",
               "gain_over_zero_shot_error", "ood_change", "shifted_change"]  # fmt: skip
    return (
        tasks[columns]
        .merge(selected, on=["model", "method", "dataset"])
        .merge(measures, on=["model", "dataset"])
        .sort_values(["model", "method", "dataset", "wise_ft"], ignore_index=True)
    )


def analyze_study(
    evaluations: list[Path], classes: list[Path], confusions: list[Path], drifts: list[Path],
    selections: list[Path], measures: list[Path], output: Path, seed: int,
    studies: dict[str, str],
) -> None:  # fmt: skip
    """Write a study's tables into the folder `output`, each as Parquet and as CSV.

    outcomes, class_accuracy, confusions, tasks, wise_ft, measures, curves and movement hold what
    was found; what is made of them is written by `write_statistics`. classes, confusions,
    drifts: the evaluations' files of class accuracies, of classes taken for others, and of how
    far embeddings moved; measures: files of tasks, and of embeddings from elsewhere, which have
    no outcomes; studies: of `paper.which_study`.
    """
    key = ["model", "method", "wise_ft", "trained_on", "evaluated_on", "split"]
    outcomes = join_outcomes(read_tables(evaluations)).sort_values(key, ignore_index=True)
    by_class = read_tables(classes).sort_values(key, ignore_index=True, kind="stable")
    rows = [json.loads(Path(path).read_text()) for path in measures]
    measured, names = tabulate_measures(rows)
    chosen = pd.DataFrame([json.loads(Path(path).read_text()) for path in selections])
    chosen = chosen.rename(columns={"epoch": "best_epoch"}).drop(
        columns=["trained_weights", "sha256"]
    )
    every = summarize_tasks(outcomes, chosen, measured[["model", "dataset", "n_train", *names]])
    whole = every.wise_ft == 1  # an interpolation is no task of its own
    tasks = every[whole].drop(columns="wise_ft").reset_index(drop=True)
    curves = ["model", "method", "dataset", "wise_ft", "accuracy", *WISE_FT]
    interpolated = every.groupby(["model", "method"]).wise_ft.transform("min") < 1
    write_tables(outcomes, output / "outcomes.parquet", {"kind": "outcomes"})
    write_tables(by_class, output / "class_accuracy.parquet", {"kind": "class_accuracy"})
    confused = read_tables(confusions)
    write_tables(confused, output / "confusions.parquet", {"kind": "confusions"})
    write_tables(every.loc[interpolated, curves], output / "wise_ft.parquet", {"kind": "wise_ft"})
    # By which a forecast knows that a model is still the study's.
    weights = {row["model"]: row["weights"] for row in rows if "weights" in row}
    facts = {"kind": "tasks", "measures": names, "weights": weights}
    write_tables(tasks, output / "tasks.parquet", facts)
    write_tables(measured, output / "measures.parquet", {"kind": "measures", "measures": names})
    moved = read_tables(drifts) if drifts else DRIFT_SCHEMA.empty_table().to_pandas()
    write_tables(moved, output / "drift.parquet", {"kind": "drift"})
    write_tables(tabulate_curves(rows), output / "curves.parquet", {"kind": "curves"})
    write_statistics(tasks, measured, names, seed, studies, output)


def write_statistics(
    tasks: pd.DataFrame, measured: pd.DataFrame, names: list[str], seed: int,
    studies: dict[str, str], output: Path,
) -> None:  # fmt: skip
    """Write what the tables of tasks and measures say of the measures `names`.

    statistics: a row for each (model, method, measure, outcome), with correlations and fits, also
    as statistics.json; differences: iimm against each other measure; pooled: fits over models;
    make_paper_tables: the paper's tables beside the study's, also in the paper's form as Markdown;
    findings and findings_evidence: the papers' findings.
    """
    statistics, differences = study_statistics(tasks, measured, names, seed)
    theirs = make_paper_tables(statistics, tasks, studies)
    evidence = collect_evidence(tasks, statistics, differences, seed)
    made = {
        "statistics": statistics, "differences": differences, "pooled": pooled_fits(tasks, names),
        "paper_tables": theirs, "findings": answer_findings(evidence), "findings_evidence": evidence,
    }  # fmt: skip
    for kind, frame in made.items():
        write_tables(frame, output / f"{kind}.parquet", {"kind": kind})
    # JSON has no NaN.
    rows = statistics.astype(object).where(statistics.notna(), None).to_dict("records")
    write_json(rows, output / "statistics.json")
    with atomic_write(output / "paper_tables.md") as beside:
        beside.write_text(format_markdown(theirs))
