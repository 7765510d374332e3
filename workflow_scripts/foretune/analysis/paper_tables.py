"""The tables of "Zero-Shot Embeddings Inform Learning and Forgetting", with a study's numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from foretune.analysis.formatting import UNKNOWN_TEXT, format_number, format_plain, is_known
from foretune.analysis.outcomes import GAIN
from foretune.analysis.pooled import (
    draw_orders,
    estimate_common_slope,
    share_datasets,
    tabulate_models,
)
from foretune.analysis.regression import fit_line
from foretune.core.config import drop_job_keys
from foretune.core.entries import ModelSpec

# The paper's numbers. A p-value or an R² that the paper's text does not give is empty.
PAPER_NUMBERS = Path(__file__).with_name("paper_tables.csv")
# Table -> its title, its outcome, and the columns of statistics that hold its value and p-value.
PAPER_TABLES = {
    1: ("Spearman's rho with gain over zero-shot error", GAIN, "spearman", "p_asymptotic"),
    2: ("Spearman's rho with accuracy", "accuracy", "spearman", "p_asymptotic"),
    3: ("R² of terms of IIMM with gain over zero-shot error", GAIN, "r2", "p_slope"),
    5: ("R² of single measures with gain, all models together", GAIN, "r2", "p_slope"),
    6: ("R² of single measures with gain, by model", GAIN, "r2", "p_slope"),
}
POOLED_TABLE = 5  # the one that takes all models together
PAPER_DATASETS = 9
PAPER_TASKS = 36  # of four models on nine datasets
# A part of a model's name -> the paper's name of its family.
MODEL_FAMILIES = {"coca": "CoCa", "siglip": "SigLIP", "eva": "EVA-02", "clip": "CLIP"}
FAMILY_ORDER = ["all", "CoCa", "EVA-02", "CLIP", "SigLIP"]  # of the paper's columns
SAME, OTHER = "the paper's study", "another study"
PAPER_TABLE_COLUMNS = [
    "table", "label", "measure", "model", "family", "source", "study", "statistic", "n", "value",
    "p", "p_permutation",
]  # fmt: skip


def get_model_family(model: str) -> str | None:
    """Return the paper's name of a model's family, or None if the model's name has no match."""
    return next((name for key, name in MODEL_FAMILIES.items() if key in model.lower()), None)


def identify_paper_study(
    models: dict[str, ModelSpec], datasets: list[str], paper: Path
) -> dict[str, str]:
    """Return for each model, and for "all", whether its numbers repeat the paper's study.

    models: the config's entries by name; paper: the config of the paper's study. A model maps to
    SAME if it is one of the paper's and the datasets are the paper's, and to OTHER otherwise.
    Models are compared by their entries, without the keys that only say how their jobs run;
    datasets are compared by name. "all" maps to SAME if the models are exactly the paper's.
    """
    study = yaml.safe_load(Path(paper).read_text())
    same_datasets = set(datasets) == set(study["datasets"])
    paper_models = [drop_job_keys(entry) for entry in study["models"].values()]
    studies = {
        name: SAME if same_datasets and drop_job_keys(entry) in paper_models else OTHER
        for name, entry in models.items()
    }
    complete = list(studies.values()).count(SAME) == len(studies) == len(paper_models)
    return studies | {"all": SAME if complete else OTHER}


def pooled_line(tasks: pd.DataFrame, measure: str, seed: int) -> dict:
    """Fit the line of table 5: gain on one measure over the tasks of all models, one intercept.

    p_slope and p_permutation come from permutations of whole datasets; see `pooled`. With fewer
    than three datasets that all models have, or a constant measure, only `n` is returned.
    """
    x, y = share_datasets(*tabulate_models(tasks, [measure, GAIN]).values())
    if len(x) < 3 or np.ptp(x) == 0:
        return {"n": x.size}
    orders = draw_orders(len(x), seed)
    p = estimate_common_slope(x - x.mean(), y - y.mean(), orders).p
    line = fit_line(x.ravel(), y.ravel())
    return {"n": x.size} | line | {"p_slope": p, "p_permutation": p}


def make_paper_tables(
    statistics: pd.DataFrame, tasks: pd.DataFrame, studies: dict[str, str], seed: int
) -> pd.DataFrame:
    """Return tables 1, 2, 3, 5 and 6 with one row per cell, of the paper and of this study.

    studies: the result of `identify_paper_study`. In the result, source is "paper" or "ours", and
    statistic is "spearman" or "r2". Our numbers are those of full fine-tuning; p is asymptotic, as
    in the paper, but for table 5 (see `pooled_line`).
    """
    numbers = pd.read_csv(PAPER_NUMBERS)
    tuned = tasks[tasks.method == "full"]
    rows = []
    for (table, measure, label), cells in numbers.groupby(
        ["table", "measure", "label"], sort=False
    ):
        _, outcome, statistic, p = PAPER_TABLES[table]
        key = {"table": table, "label": label, "measure": measure, "statistic": statistic}
        for cell in cells.to_dict("records"):
            rows.append(key | {
                "model": cell["family"], "family": cell["family"], "source": "paper",
                "study": SAME, "n": PAPER_TASKS if table == POOLED_TABLE else PAPER_DATASETS,
                "value": cell["value"], "p": cell["p"],
            })  # fmt: skip
        fits: list[dict] = []
        if table != POOLED_TABLE:
            chosen = (statistics.method == "full") & (statistics.measure == measure)
            fits = statistics[chosen & (statistics.outcome == outcome)].to_dict("records")
        elif measure in tuned:
            fits = [{"model": "all"} | pooled_line(tuned, measure, seed)]
        for fit in fits:
            model = fit["model"]
            rows.append(key | {
                "model": model, "family": "all" if model == "all" else get_model_family(model),
                "source": "ours", "study": studies[model], "n": fit["n"],
                "value": fit.get(statistic), "p": fit.get(p),
                "p_permutation": (
                    fit.get("p_permutation")
                    if statistic == "spearman" or table == POOLED_TABLE else None
                ),
            })  # fmt: skip
    frame = pd.DataFrame(rows, columns=PAPER_TABLE_COLUMNS)
    return frame.astype(dict.fromkeys(["value", "p", "p_permutation"], float))


def get_table_heads(cells: pd.DataFrame) -> list[dict]:
    """Return the columns of one table in the paper's order; ours follow the paper's per family.

    Each is a dict of source, model, family, study, place and title.
    """
    heads = cells[["source", "model", "family", "study"]].drop_duplicates()
    place = [
        FAMILY_ORDER.index(name) if name in FAMILY_ORDER else len(FAMILY_ORDER)
        for name in heads.family
    ]
    heads = heads.assign(place=place).sort_values(
        ["place", "source"], ascending=[True, False], kind="stable"
    )
    study_titles = {SAME: "this run of the paper's study", OTHER: "another study"}
    return [
        head | {"title": f"{head['model']}, "
                + ("the paper" if head["source"] == "paper" else study_titles[head["study"]])}
        for head in heads.to_dict("records")
    ]  # fmt: skip


def format_markdown(tables: pd.DataFrame) -> str:
    """Return the tables as Markdown, in the paper's form: one row per measure."""
    lines = ["# The paper's tables"]
    for table, cells in tables.groupby("table"):
        heads = get_table_heads(cells)
        lines += ["", f"## Table {table}: {PAPER_TABLES[table][0]}", ""]
        lines.append("| measure | " + " | ".join(head["title"] for head in heads) + " |")
        lines.append("|---" * (len(heads) + 1) + "|")
        for label, row in cells.groupby("label", sort=False):
            by_head = {(cell["source"], cell["model"]): cell for cell in row.to_dict("records")}
            shown = [format_cell(by_head.get((head["source"], head["model"]))) for head in heads]
            lines.append(f"| {label} | " + " | ".join(shown) + " |")
        if not (cells.source == "ours").any():
            lines += ["", "This study has no full fine-tuning or none of these measures."]
    return "\n".join(lines) + "\n"


def format_cell(cell: dict | None) -> str:
    """Format a value and its asymptotic p-value; a dash if there is no value."""
    if cell is None:
        return UNKNOWN_TEXT
    p = f" (p {format_plain(cell['p'])})" if is_known(cell["p"]) else ""
    return format_number(cell["value"]) + p
