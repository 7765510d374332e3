"""The report's tables: which columns each has, what they are called and how values are shown."""

import pandas as pd

from foretune.analysis.formatting import is_known
from foretune.analysis.paper_tables import PAPER_TABLES, get_table_heads
from foretune.report.page_data import mean_rows

# Column -> its heading, how a value is shown, and perhaps the columns of its interval or p-value.
RUN_HEADS = {"model": ("model", "text"), "method": ("method", "text")}
TASK_HEADS = RUN_HEADS | {"dataset": ("dataset", "text")}
CHANGE_HEADS = {
    "gain_over_zero_shot_error": ("gain", "number"),
    "ood_change": ("other tasks (points)", "points"),
    "shifted_change": ("shifted tests (points)", "points"),
}
ACCURACY_HEADS = {"zero_shot_accuracy": ("zero-shot", "percent"), "accuracy": ("tuned", "percent")}
MEAN_HEADS = RUN_HEADS | {"n": ("datasets", "plain")} | ACCURACY_HEADS | CHANGE_HEADS
RESULT_HEADS = TASK_HEADS | {"chance": ("chance", "percent")} | ACCURACY_HEADS | CHANGE_HEADS
CHOSEN_HEADS = TASK_HEADS | {
    "rank": ("rank", "plain"), "reduction": ("reduction", "plain"),
    "learning_rate": ("learning rate", "plain"), "weight_decay": ("weight decay", "plain"),
    "best_epoch": ("best epoch", "plain"), "val_accuracy": ("validation accuracy", "percent"),
}  # fmt: skip
DRIFT_HEADS = TASK_HEADS | {
    name: (name.replace("_", " "), "number")
    for name in ["iimm_before", "iimm_after", "iimm_change", "bound", "mean_displacement", "text_displacement",
                 "wasserstein", "wasserstein_bound"]
} | {"wasserstein_n": ("wasserstein n", "plain")}  # fmt: skip
PAIR_HEADS = RUN_HEADS | {
    "measure": ("measure", "text"),
    "outcome": ("outcome", "outcome"),
    "n": ("n", "plain"),
}
STATISTICS_HEADS = PAIR_HEADS | {
    "spearman": ("Spearman’s ρ", "number", "spearman_low", "spearman_high"),
    "p_permutation": ("p, permutation", "plain"), "p_holm": ("p, corrected", "plain"),
    "p_asymptotic": ("p, asymptotic", "plain"),
    "kendall": ("Kendall’s τ", "number", "kendall_low", "kendall_high"),
    "p_kendall_permutation": ("p of τ", "plain"), "r2": ("R²", "number"),
    "slope": ("slope", "number", "slope_low", "slope_high"), "p_slope": ("p of slope", "plain"),
    "hinge_threshold": ("hinge at", "number"), "hinge_r2": ("R² of hinge", "number"),
    "aic_difference": ("AIC, hinge − line", "number"), "note": ("note", "text"),
}  # fmt: skip
DIFFERENCE_HEADS = RUN_HEADS | {
    "rival": ("rival", "text"), "outcome": ("outcome", "outcome"), "n": ("n", "plain"),
    "iimm": ("strength of iimm", "number"), "rival_strength": ("of the rival", "number"),
    "difference": ("difference", "number", "low", "high"),
}  # fmt: skip
POOLED_HEADS = {
    "method": ("method", "text"), "measure": ("measure", "text"), "outcome": ("outcome", "outcome"),
    "n": ("n", "plain"), "models": ("models", "plain"),
    "slope": ("slope", "number", "slope_low", "slope_high"), "p_slope": ("p of slope", "plain"),
    "r2": ("R²", "number"), "p_slopes_differ": ("p, slopes differ", "plain"),
}  # fmt: skip
EVIDENCE_HEADS = {
    "finding": ("finding", "plain"), "part": ("part", "text"), "model": ("model", "text"),
    "cell": ("compared", "text"), "n": ("n", "plain"),
    "estimate": ("estimate", "number", "low", "high"), "vote": ("vote", "text"),
}  # fmt: skip
FORECAST_HEADS = {"dataset": ("dataset", "text")} | RUN_HEADS | {
    "outcome": ("outcome", "outcome"), "expected": ("expected", "number", "low", "high"),
    "study_mean": ("study’s mean", "number"),
    "loo_error": ("error, left out", "number"),
    "loo_mean_error": ("error of the mean", "number"),
    "loo_rival_error": ("error of the best rival", "number"),
    "n": ("study’s datasets", "plain"), "n_train": ("images", "plain"), "iimm": ("iimm", "number"),
    "note": ("note", "text"),
}  # fmt: skip
RANKING_HEADS = {
    "dataset": ("dataset", "text"), "rank": ("rank", "plain"), **RUN_HEADS, "score": ("score", "number"),
    "gain_over_zero_shot_error": ("expected gain", "number"),
    "ood_change": ("expected change (points)", "points"), "note": ("note", "text"),
}  # fmt: skip


def make_table(caption: str, data: str, columns: dict[str, tuple]) -> dict:
    """A table of the page; beside: columns whose values stand in the same cell."""
    shown = [
        {"key": key, "label": label, "kind": kind, "beside": beside}
        for key, (label, kind, *beside) in columns.items()
    ]
    return {"caption": caption, "data": data, "columns": shown}


def has_text(value) -> bool:
    return is_known(value) and value != ""


def select_heads(columns: dict[str, tuple], frame: pd.DataFrame) -> dict[str, tuple]:
    """The columns that hold anything: a study without a grid of ranks has no column for it."""
    kept = [k for k in columns if k in frame and (k in TASK_HEADS or frame[k].map(has_text).any())]
    return {key: columns[key] for key in kept}


def make_paper_form(cells: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, tuple]]:
    """One of the paper's tables with its measures in rows, and its columns."""
    heads, columns = get_table_heads(cells), {"measure": ("measure", "text")}
    made = pd.DataFrame({"measure": list(dict.fromkeys(cells.label))})
    for i, head in enumerate(heads):
        own = cells[(cells.source == head["source"]) & (cells.model == head["model"])]
        own = own.drop_duplicates("label").set_index("label").reindex(made.measure)
        made[f"value_{i}"], made[f"p_{i}"] = own.value.to_numpy(), own.p.to_numpy()
        columns[f"value_{i}"] = (head["title"], "number", f"p_{i}")
    return made, columns


def make_paper_form_tables(cells: pd.DataFrame) -> dict[str, tuple[dict, pd.DataFrame]]:
    found = {}
    for number, own in cells.groupby("table"):
        frame, columns = make_paper_form(own)
        title = f"The paper’s table {number}: {PAPER_TABLES[number][0]}"
        found[f"paper-{number}"] = (make_table(title, f"paper-{number}", columns), frame)
    return found


def make_measure_heads(measures: list[str]) -> dict[str, tuple]:
    run = {
        "model": TASK_HEADS["model"],
        "dataset": TASK_HEADS["dataset"],
        "n_train": ("images", "plain"),
    }
    return run | {name: (name, "number", f"{name}.low", f"{name}.high") for name in measures}


def make_study_tables(
    study: dict[str, pd.DataFrame], measures: list[str]
) -> dict[str, tuple[dict, pd.DataFrame]]:
    """Name -> each table's description and its data, which two tables of tasks share."""
    ends = [f"{name}.{end}" for name in measures for end in ("low", "high")]
    have = study["measures"]
    measured = have.reindex(columns=list(dict.fromkeys([*have, *ends])))
    tasks = study["tasks"]
    made = {
        "means": ("Means over the datasets", mean_rows(tasks), MEAN_HEADS),
        "results": ("Test results", tasks, RESULT_HEADS),
        "chosen": ("Chosen trials", tasks, CHOSEN_HEADS),
        "measures": ("Measures, with 95% intervals over images", measured,
                     make_measure_heads(measures)),
        "drift": ("Drift of the embeddings by fine-tuning", study["drift"], DRIFT_HEADS),
        "statistics": ("Correlations and fits", study["statistics"], STATISTICS_HEADS),
        "differences": ("IIMM against each other measure", study["differences"], DIFFERENCE_HEADS),
        "pooled": ("One line for all models", study["pooled"], POOLED_HEADS),
        "evidence": ("Evidence of the findings", study["findings_evidence"], EVIDENCE_HEADS),
    }  # fmt: skip
    found = {
        name: (
            make_table(caption, "tasks" if frame is tasks else name, select_heads(every, frame)),
            frame,
        )
        for name, (caption, frame, every) in made.items()
    }
    return found | make_paper_form_tables(study["paper_tables"])
