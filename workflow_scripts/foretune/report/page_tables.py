"""Define the report's tables: their columns, headings, and how values are formatted."""

import pandas as pd

from foretune.analysis.outcomes import GAIN
from foretune.analysis.paper_tables import PAPER_TABLES, get_table_heads
from foretune.report.page_data import (
    PageColumn,
    PageTable,
    PageTableData,
    average_over_datasets,
)

# Key of a column -> its heading, the format of its values (see `show` in page/data.js), and, if
# there are any, the keys of the columns that are shown in the same cell: the two ends of an
# interval, or a p-value.
ColumnSpecs = dict[str, tuple[str, ...]]

RUN_COLUMN_SPECS: ColumnSpecs = {"model": ("model", "text"), "method": ("method", "text")}
TASK_COLUMN_SPECS = RUN_COLUMN_SPECS | {"dataset": ("dataset", "text")}
CHANGE_COLUMN_SPECS: ColumnSpecs = {
    "gain_over_zero_shot_error": ("gain", "number"),
    "ood_change": ("other tasks (points)", "points"),
    "shifted_change": ("shifted tests (points)", "points"),
}
ACCURACY_COLUMN_SPECS: ColumnSpecs = {
    "zero_shot_accuracy": ("zero-shot", "percent"),
    "accuracy": ("fine-tuned", "percent"),
}
MEAN_COLUMN_SPECS = (
    RUN_COLUMN_SPECS | {"n": ("datasets", "plain")} | ACCURACY_COLUMN_SPECS | CHANGE_COLUMN_SPECS
)
RESULT_COLUMN_SPECS = (
    TASK_COLUMN_SPECS
    | {"chance": ("chance", "percent")}
    | ACCURACY_COLUMN_SPECS
    | CHANGE_COLUMN_SPECS
    | {
        "zero_shot_ece": ("calibration error, zero-shot", "percent"),
        "ece": ("calibration error", "percent"),
        "zero_shot_ece_scaled": ("scaled, zero-shot", "percent"),
        "ece_scaled": ("calibration error, scaled", "percent"),
        "temperature": ("temperature", "number"),
    }
)
SELECTION_COLUMN_SPECS = TASK_COLUMN_SPECS | {
    "rank": ("rank", "plain"), "reduction": ("reduction", "plain"),
    "learning_rate": ("learning rate", "plain"), "weight_decay": ("weight decay", "plain"),
    "best_epoch": ("best epoch", "plain"), "val_accuracy": ("validation accuracy", "percent"),
}  # fmt: skip
SEED_COLUMN_SPECS: ColumnSpecs = RUN_COLUMN_SPECS | {
    "dataset": ("dataset (– is all)", "text"),
    "shots": ("images per class (– is all)", "plain"),
    "wise_ft": ("share of the tuned weights", "plain"), "seeds": ("seeds", "plain"),
    "accuracy": ("accuracy", "percent", "accuracy_low", "accuracy_high"),
    GAIN: ("gain", "number", f"{GAIN}_low", f"{GAIN}_high"),
    "ood_change": ("other tasks (points)", "points", "ood_change_low", "ood_change_high"),
    "shifted_change": ("shifted tests (points)", "points", "shifted_change_low",
                       "shifted_change_high"),
}  # fmt: skip
BASE_TO_NEW_COLUMN_SPECS = TASK_COLUMN_SPECS | {
    "wise_ft": ("share of the tuned weights", "plain"),
    "zero_shot_base": ("base, zero-shot", "percent"), "base": ("base", "percent"),
    "zero_shot_new": ("new, zero-shot", "percent"), "new": ("new", "percent"),
    "zero_shot_harmonic_mean": ("harmonic mean, zero-shot", "percent"),
    "harmonic_mean": ("harmonic mean", "percent"),
}  # fmt: skip
DRIFT_COLUMN_SPECS = TASK_COLUMN_SPECS | {
    "iimm_before": ("IIMM before", "number"), "iimm_after": ("IIMM after", "number"),
    "iimm_change": ("change of IIMM", "number"), "bound": ("bound on the change", "number"),
    "mean_displacement": ("image displacement", "number"),
    "text_displacement": ("caption displacement", "number"),
    "wasserstein": ("Wasserstein distance", "number"),
    "wasserstein_bound": ("Wasserstein bound", "number"),
    "wasserstein_n": ("sampled images", "plain"),
}  # fmt: skip
STATISTICS_COLUMN_SPECS = RUN_COLUMN_SPECS | {
    "measure": ("measure", "text"), "outcome": ("outcome", "outcome"), "n": ("n", "plain"),
    "spearman": ("Spearman’s ρ", "number", "spearman_low", "spearman_high"),
    "p_permutation": ("p (permutation)", "plain"), "p_holm": ("p (Holm)", "plain"),
    "p_asymptotic": ("p (asymptotic)", "plain"),
    "kendall": ("Kendall’s τ", "number", "kendall_low", "kendall_high"),
    "p_kendall_permutation": ("p of τ", "plain"), "r2": ("R²", "number"),
    "slope": ("slope", "number", "slope_low", "slope_high"), "p_slope": ("p of slope", "plain"),
    "hinge_threshold": ("hinge threshold", "number"), "hinge_r2": ("R² of hinge", "number"),
    "aicc_difference": ("AICc, hinge − line", "number"), "note": ("note", "text"),
}  # fmt: skip
DIFFERENCE_COLUMN_SPECS = RUN_COLUMN_SPECS | {
    "rival": ("other measure", "text"), "outcome": ("outcome", "outcome"), "n": ("n", "plain"),
    "iimm": ("strength of IIMM", "number"),
    "rival_strength": ("strength of the other", "number"),
    "difference": ("difference", "number", "low", "high"),
}  # fmt: skip
POOLED_COLUMN_SPECS: ColumnSpecs = {
    "method": ("method", "text"), "measure": ("measure", "text"), "outcome": ("outcome", "outcome"),
    "n": ("n", "plain"), "datasets": ("datasets", "plain"), "models": ("models", "plain"),
    "slope": ("slope", "number", "slope_low", "slope_high"), "p_slope": ("p of slope", "plain"),
    "r2": ("R²", "number"), "p_slopes_differ": ("p (slopes differ)", "plain"),
}  # fmt: skip
TRADE_OFF_COLUMN_SPECS = RUN_COLUMN_SPECS | {
    "n": ("n", "plain"), "gain_over_zero_shot_error": ("mean gain", "number"),
    "ood_change": ("mean change on other tasks (points)", "points"),
    "spearman": ("Spearman’s ρ", "number", "spearman_low", "spearman_high"),
    "p_permutation": ("p (permutation)", "plain"),
}  # fmt: skip
FRONT_COLUMN_SPECS = RUN_COLUMN_SPECS | {
    "wise_ft": ("weight of the fine-tuned model", "plain"), "n": ("datasets", "plain"),
    GAIN: ("mean gain", "number", f"{GAIN}_low", f"{GAIN}_high"),
    "ood_change": ("mean change on other tasks (points)", "points", "ood_change_low",
                   "ood_change_high"),
    "front_share": ("resamples with it on the front", "percent"),
}  # fmt: skip
EVIDENCE_COLUMN_SPECS: ColumnSpecs = {
    "finding": ("finding", "plain"), "part": ("part", "text"), "model": ("model", "text"),
    "cell": ("comparison", "text"), "n": ("n", "plain"),
    "estimate": ("estimate", "number", "low", "high"), "vote": ("vote", "text"),
}  # fmt: skip
FORECAST_COLUMN_SPECS: ColumnSpecs = {
    "dataset": ("dataset", "text"), **RUN_COLUMN_SPECS, "outcome": ("outcome", "outcome"),
    "expected": ("expected", "number", "low", "high"),
    "predictor": ("rests on", "text"),
    "loo_error": ("leave-one-out error", "number"),
    "loo_mean_error": ("error of the study’s mean", "number"),
    "loo_iimm_error": ("error of the line on IIMM", "number"),
    "n": ("study’s datasets", "plain"), "n_train": ("images", "plain"),
    "note": ("note", "text"),
}  # fmt: skip
RANKING_COLUMN_SPECS: ColumnSpecs = {
    "dataset": ("dataset", "text"), "rank": ("rank", "plain"), **RUN_COLUMN_SPECS,
    "score": ("score", "number"), "accuracy": ("expected accuracy", "percent"),
    "ood_change": ("expected change on other tasks (points)", "points"),
    "behind": ("behind the first", "number", "behind_low", "behind_high"), "note": ("note", "text"),
}  # fmt: skip


def make_table(caption: str, data: str, specs: ColumnSpecs) -> PageTable:
    """Describe a table of the page."""
    columns: list[PageColumn] = [
        {"key": key, "label": label, "kind": kind, "beside": beside}
        for key, (label, kind, *beside) in specs.items()
    ]
    return {"caption": caption, "data": data, "columns": columns}


def has_text(column: pd.Series) -> bool:
    """Return whether a column has a value that is neither unknown nor an empty text."""
    return bool((column.notna() & (column != "")).any())


def drop_empty_columns(specs: ColumnSpecs, frame: pd.DataFrame) -> ColumnSpecs:
    """Return the columns in which `frame` has a value, and always those that name the task.

    A study without LoRA, for example, has no values in the column `rank`.
    """
    return {
        key: spec for key, spec in specs.items()
        if key in frame and (key in TASK_COLUMN_SPECS or has_text(frame[key]))
    }  # fmt: skip


def arrange_paper_table(cells: pd.DataFrame) -> tuple[pd.DataFrame, ColumnSpecs]:
    """Return one of the paper's tables with a row per measure, and its columns."""
    specs: ColumnSpecs = {"measure": ("measure", "text")}
    frame = pd.DataFrame({"measure": list(dict.fromkeys(cells.label))})
    for i, head in enumerate(get_table_heads(cells)):
        column = cells[(cells.source == head["source"]) & (cells.model == head["model"])]
        column = column.drop_duplicates("label").set_index("label").reindex(frame.measure)
        frame[f"value_{i}"], frame[f"p_{i}"] = column.value.to_numpy(), column.p.to_numpy()
        specs[f"value_{i}"] = (head["title"], "number", f"p_{i}")
    return frame, specs


def arrange_paper_tables(cells: pd.DataFrame) -> dict[str, PageTableData]:
    """Return the tables in the form of the paper's, by name, from the table `paper_tables`."""
    tables = {}
    for number, table_cells in cells.groupby("table"):
        frame, specs = arrange_paper_table(table_cells)
        name = f"paper-{number}"
        caption = f"The paper’s table {number}: {PAPER_TABLES[number][0]}"
        tables[name] = (make_table(caption, name, specs), frame)
    return tables


def make_measure_column_specs(measures: list[str]) -> ColumnSpecs:
    """Return the columns of the table of measures, each measure with its interval."""
    specs: ColumnSpecs = {
        "model": TASK_COLUMN_SPECS["model"],
        "dataset": TASK_COLUMN_SPECS["dataset"],
        "n_train": ("images", "plain"),
    }
    return specs | {name: (name, "number", f"{name}.low", f"{name}.high") for name in measures}


def make_study_tables(
    study: dict[str, pd.DataFrame], measures: list[str]
) -> dict[str, PageTableData]:
    """Return the page's tables by name; the two tables with a row per task share their data."""
    tasks = study["tasks"]
    interval_ends = [f"{name}.{end}" for name in measures for end in ("low", "high")]
    measured = study["measures"]
    measured = measured.reindex(columns=list(dict.fromkeys([*measured, *interval_ends])))
    contents = {
        "means": ("Means over the datasets", average_over_datasets(tasks), MEAN_COLUMN_SPECS),
        "results": ("Test results", tasks, RESULT_COLUMN_SPECS),
        "chosen": ("Selected trials", tasks, SELECTION_COLUMN_SPECS),
        "base_to_new": ("From base classes to new ones", study["base_to_new"],
                        BASE_TO_NEW_COLUMN_SPECS),
        "seeds": ("Means over seeds, with 95% intervals", study["seeds"], SEED_COLUMN_SPECS),
        "measures": ("Measures with 95% intervals over images", measured,
                     make_measure_column_specs(measures)),
        "drift": ("Embedding drift during fine-tuning", study["drift"], DRIFT_COLUMN_SPECS),
        "statistics": ("Correlations and fits", study["statistics"], STATISTICS_COLUMN_SPECS),
        "differences": ("IIMM compared with each other measure", study["differences"],
                        DIFFERENCE_COLUMN_SPECS),
        "pooled": ("One line for all models", study["pooled"], POOLED_COLUMN_SPECS),
        "front": ("The front of gain and forgetting", study["front"], FRONT_COLUMN_SPECS),
        "trade_offs": ("Gain with the change on other tasks", study["trade_offs"],
                       TRADE_OFF_COLUMN_SPECS),
        "evidence": ("Evidence for the findings", study["findings_evidence"],
                     EVIDENCE_COLUMN_SPECS),
    }  # fmt: skip
    tables = {}
    for name, (caption, frame, specs) in contents.items():
        data = "tasks" if frame is tasks else name
        tables[name] = (make_table(caption, data, drop_empty_columns(specs, frame)), frame)
    return tables | arrange_paper_tables(study["paper_tables"])
