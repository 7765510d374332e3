"""Write the tables of a study: measures joined with outcomes, correlations, fits, findings."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from foretune.analysis.base_to_new import tabulate_base_to_new
from foretune.analysis.clip_benchmark import tabulate_clip_benchmark
from foretune.analysis.findings import answer_findings, collect_evidence
from foretune.analysis.front import compute_front
from foretune.analysis.measure_tables import (
    MeasuresFile,
    join_rehearsals,
    tabulate_curves,
    tabulate_measures,
)
from foretune.analysis.missing import tabulate_missing
from foretune.analysis.outcomes import GAIN
from foretune.analysis.paper_tables import format_markdown, make_paper_tables
from foretune.analysis.pilots import read_pilots
from foretune.analysis.published import tabulate_outcomes
from foretune.analysis.seeds import average_seeds, tabulate_seeds
from foretune.analysis.statistics import correlate_trade_offs, pooled_fits, study_statistics
from foretune.analysis.table_files import read_tables, sort_by_run, stream_tables, write_tables
from foretune.analysis.tables import STATISTICS_TABLE_NAMES
from foretune.core.entries import ModelSpec, Selection
from foretune.core.files import atomic_write, read_json
from foretune.core.parquet import read_table
from foretune.evaluation.scores import (
    CLASS_SCHEMA,
    CONFUSION_SCHEMA,
    DRIFT_SCHEMA,
    OUTCOME_SCHEMA,
)
from foretune.training.trials import read_selection_file

# The outcomes that change with the weight of a WiSE-FT interpolation.
WISE_FT = (GAIN, "ood_change", "shifted_change")
EVALUATION_KEY = ["model", "method", "wise_ft", "trained_on", "evaluated_on", "split"]
SELECTION_COLUMNS = [
    "model", "method", "dataset", "trial", "learning_rate", "weight_decay", "best_epoch",
    "val_accuracy",
]  # fmt: skip
# Of evaluations; accuracies from elsewhere have none.
CALIBRATION = ("ece", "nll", "temperature", "ece_scaled", "nll_scaled")
TASK_COLUMNS = [
    "model", "method", "dataset", "wise_ft", "chance", "n_test", "zero_shot_accuracy", "accuracy",
    *WISE_FT, *(f"{model}{name}" for name in CALIBRATION for model in ("zero_shot_", "")),
]  # fmt: skip


@dataclass(frozen=True)
class StudyFiles:
    """Paths of a study's results, of which the analysis makes its tables."""

    evaluations: list[Path]  # accuracies of the models on every test
    classes: list[Path]  # accuracies per class
    confusions: list[Path]  # classes taken for other classes
    selections: list[Path]  # the selected trial of each run, as JSON
    measures: list[Path]  # JSON files of tasks, and of embeddings from elsewhere
    drifts: list[Path] = field(default_factory=list)  # drift of the embeddings by fine-tuning
    rehearsals: list[Path] = field(default_factory=list)  # JSON files of tasks
    # CSV file of accuracies from elsewhere, which replaces all of the above but the measures
    outcomes: Path | None = None
    manifests: list[Path] = field(default_factory=list)  # of the tests of these accuracies
    pilots: list[Path] = field(default_factory=list)  # JSON files of pilots
    unfinished: Sequence[dict] = ()  # see `missing.list_unfinished`


def join_outcomes(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Add to each evaluation its model's zero-shot accuracy and calibration on the same test."""
    keys, values = ["model", "evaluated_on", "split"], ["accuracy", *CALIBRATION]
    zero_shot = evaluations[evaluations.method == "zero_shot"].set_index(keys)[values]
    return evaluations.join(zero_shot.add_prefix("zero_shot_"), on=keys)


def gain_over_zero_shot_error(accuracy, zero_shot):
    """Return (accuracy - zero_shot) / (1 - zero_shot); NaN if the zero-shot error is 0."""
    error = 1 - zero_shot
    return (accuracy - zero_shot) / np.where(error == 0, np.nan, error)


def summarize_tasks(
    outcomes: pd.DataFrame, selected: pd.DataFrame, measures: pd.DataFrame
) -> pd.DataFrame:
    """Return one row per (model, method, dataset, wise_ft): gain, forgetting and measures.

    outcomes: see `join_outcomes`; selected: the selected trials; measures: one row per (model,
    dataset). `ood_change` and `shifted_change` are means of accuracy minus zero-shot accuracy:
    over the other datasets' own tests, and over the shifted tests of the dataset itself. They are
    NaN if there is no such test. Tasks that were not selected here or not measured have NaN there.
    """
    tuned = outcomes[outcomes.method != "zero_shot"]
    same, plain = tuned.trained_on == tuned.evaluated_on, tuned.split == "test"
    shifted = tuned[same & ~plain]
    # If the test of one dataset is a shifted test of another, both are the same task.
    tests = set(zip(tuned.evaluated_on[plain], tuned.test_digest[plain], strict=True))
    same_task = {
        frozenset((dataset, other))
        for dataset, digest in zip(shifted.trained_on, shifted.test_digest, strict=True)
        for other, test in tests
        if test == digest
    }
    pairs = map(frozenset, zip(tuned.trained_on, tuned.evaluated_on, strict=True))
    distinct = np.array([pair not in same_task for pair in pairs], dtype=bool)
    others = tuned[~same & plain & distinct]
    keys = ["model", "method", "wise_ft", "trained_on"]

    def mean_change(rows: pd.DataFrame, name: str) -> pd.Series:
        change = rows.accuracy - rows.zero_shot_accuracy
        return change.groupby([rows[key] for key in keys]).mean().rename(name)

    tasks = tuned[same & plain].join(mean_change(others, "ood_change"), on=keys)
    tasks = tasks.join(mean_change(shifted, "shifted_change"), on=keys)
    tasks[GAIN] = gain_over_zero_shot_error(tasks.accuracy, tasks.zero_shot_accuracy)
    return (
        tasks.rename(columns={"trained_on": "dataset", "n": "n_test"})[TASK_COLUMNS]
        .merge(selected, on=["model", "method", "dataset"], how="left")
        .merge(measures, on=["model", "dataset"], how="left")
        .sort_values(["model", "method", "dataset", "wise_ft"], ignore_index=True)
    )


def tabulate_selections(runs: list[Selection]) -> pd.DataFrame:
    """Return one row per run that did not diverge: its selected trial and its best epoch."""
    selections = [run for run in runs if not run.get("diverged")]
    if not selections:
        numbers = dict.fromkeys(SELECTION_COLUMNS[3:], float)
        return pd.DataFrame(columns=SELECTION_COLUMNS).astype(numbers)
    frame = pd.DataFrame(selections).rename(columns={"epoch": "best_epoch"})
    return frame.drop(columns=["trained_weights", "sha256"])


@dataclass(frozen=True)
class StudyTasks:
    """A study's outcomes joined with its measures.

    outcomes: see `join_outcomes`; tasks: see `summarize_tasks`; measures, names: see
    `tabulate_measures`; files: of the measures, with the predictors of the rehearsals, whose names
    are `predictors`; pilots: see `read_pilots`; missing: see `tabulate_missing`; seeds: see
    `tabulate_seeds`. The seeds of a method are averaged in the tasks and the pilots.
    """

    outcomes: pd.DataFrame
    tasks: pd.DataFrame
    measures: pd.DataFrame
    names: list[str]
    files: list[MeasuresFile]
    predictors: list[str]
    pilots: pd.DataFrame
    missing: pd.DataFrame
    seeds: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def weights(self) -> dict[str, str]:
        """The digest of each model's weights."""
        return {file["model"]: file["weights"] for file in self.files if "weights" in file}


def tabulate_tasks(files: StudyFiles) -> StudyTasks:
    """Join the outcomes of a study, as many as there are, with its measures."""
    evaluations = read_tables(files.evaluations, OUTCOME_SCHEMA)
    if files.outcomes:
        evaluations = tabulate_outcomes(files.outcomes, files.manifests)
    outcomes = join_outcomes(evaluations)
    outcomes = outcomes.sort_values(EVALUATION_KEY, ignore_index=True)
    measured: list[MeasuresFile] = [read_json(path, MeasuresFile) for path in files.measures]
    rehearsals: list[MeasuresFile] = [read_json(path, MeasuresFile) for path in files.rehearsals]
    measured = join_rehearsals(measured, rehearsals)
    measures, names = tabulate_measures(measured)
    task_measures = measures[["model", "dataset", "n_train", *names]]
    runs = list(map(read_selection_file, files.selections))
    tasks = summarize_tasks(outcomes, tabulate_selections(runs), task_measures)
    predictors = sorted({name for file in rehearsals for name in file["measures"]})
    pilots = read_pilots(files.pilots)
    if len(pilots):
        tasks = tasks.merge(pilots, "left", ["model", "method", "dataset"])
    missing = tabulate_missing(runs, files.unfinished)
    seeds = tabulate_seeds(tasks)
    tasks, pilots = average_seeds(tasks), average_seeds(pilots)
    return StudyTasks(
        outcomes, tasks, measures, names, measured, predictors, pilots, missing, seeds
    )


def analyze_study(
    files: StudyFiles, models: dict[str, ModelSpec], studies: dict[str, str], seed: int,
    output: Path,
) -> None:  # fmt: skip
    """Write a study's tables into the folder `output`, each as Parquet and as CSV.

    The tables are those of `tables.TABLE_NAMES`. outcomes, class_accuracy, confusions, tasks,
    missing, seeds, base_to_new, wise_ft, measures, curves and drift hold results, and
    clip_benchmark the outcomes in other columns; front rests on the tasks of all weights, and
    `write_statistics` derives the others from those of fine-tuned ones.
    models: the config's entries by name; studies: the result of
    `paper_tables.identify_paper_study`.
    """
    study = tabulate_tasks(files)
    all_tasks, names = study.tasks, study.names
    fully_tuned = all_tasks.wise_ft == 1  # an interpolation is not a task of its own
    tasks = all_tasks[fully_tuned].drop(columns="wise_ft").reset_index(drop=True)
    interpolated = all_tasks.groupby(["model", "method"]).wise_ft.transform("min") < 1
    wise_ft_columns = ["model", "method", "dataset", "wise_ft", "accuracy", *WISE_FT]
    tables = {
        "outcomes": study.outcomes,
        "clip_benchmark": tabulate_clip_benchmark(study.outcomes, models),
        "wise_ft": all_tasks.loc[interpolated, wise_ft_columns],
        "front": compute_front(all_tasks, seed),
        "tasks": tasks,
        "missing": study.missing,
        "seeds": study.seeds,
        "base_to_new": tabulate_base_to_new(study.outcomes),
        "measures": study.measures,
        "curves": tabulate_curves(study.files),
    }
    # A forecast compares the digests of weights to see whether its model is the study's.
    metadata: dict[str, dict] = {
        "tasks": {
            "measures": names,
            "weights": study.weights,
            "missing": study.missing.to_dict("records"),
        },
        "measures": {"measures": names},
    }
    for name, table in tables.items():
        facts = {"kind": name, **metadata.get(name, {})}
        write_tables(table, output / f"{name}.parquet", facts)
    for name, parts, schema in (
        ("class_accuracy", sort_by_run(files.classes, EVALUATION_KEY), CLASS_SCHEMA),
        ("confusions", map(read_table, files.confusions), CONFUSION_SCHEMA),
        ("drift", map(read_table, files.drifts), DRIFT_SCHEMA),
    ):
        stream_tables(parts, schema, output / f"{name}.parquet", {"kind": name})
    write_statistics(tasks, study.measures, names, study.predictors, seed, studies, output)


def write_statistics(
    tasks: pd.DataFrame, measured: pd.DataFrame, names: list[str], predictors: list[str],
    seed: int, studies: dict[str, str], output: Path,
) -> None:  # fmt: skip
    """Write the tables that are derived from tasks and from the measures `names`.

    statistics: one row per (model, method, measure, outcome), with correlations and fits, also as
    statistics.json; differences: IIMM against each other measure; pooled: fits over models;
    trade_offs: gain with the change on other tasks;
    paper_tables: the paper's tables next to the study's, also in the paper's form as
    paper_tables.md; findings and findings_evidence: the papers' findings, which are about
    measures and not about the `predictors`, those of the names that come from rehearsals.
    """
    statistics, differences = study_statistics(tasks, measured, names, seed)
    paper_tables = make_paper_tables(statistics, tasks, studies, seed)
    among_measures = differences[~differences.rival.isin(predictors)]
    evidence = collect_evidence(tasks, statistics, among_measures, seed)
    tables = {
        "statistics": statistics,
        "differences": differences,
        "pooled": pooled_fits(tasks, names, seed),
        "trade_offs": correlate_trade_offs(tasks, seed),
        "paper_tables": paper_tables,
        "findings": answer_findings(evidence),
        "findings_evidence": evidence,
    }
    for name in STATISTICS_TABLE_NAMES:
        write_tables(tables[name], output / f"{name}.parquet", {"kind": name})
    # JSON has no NaN.
    rows = statistics.astype(object).where(statistics.notna(), None).to_dict("records")
    with atomic_write(output / "statistics.json") as beside:
        # A line per row: indented JSON takes ten times as long.
        lines = (json.dumps(row, sort_keys=True) for row in rows)
        beside.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    with atomic_write(output / "paper_tables.md") as beside:
        beside.write_text(format_markdown(paper_tables))
