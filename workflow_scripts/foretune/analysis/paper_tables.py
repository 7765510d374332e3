"""The tables of "Zero-Shot Embeddings Inform Learning and Forgetting", with a study's numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from foretune.analysis.formatting import format_number, format_plain, is_known
from foretune.analysis.outcomes import GAIN
from foretune.analysis.regression import fit_line
from foretune.core.config import JOB_KEYS

# A p-value or an R^2 that the paper's text does not show is empty in it.
NUMBERS = Path(__file__).with_name("paper_tables.csv")
# Table -> its title, what it shows of the outcome, and the columns of statistics.
PAPER_TABLES = {
    1: ("Spearman's rho with gain over zero-shot error", GAIN, "spearman", "p_asymptotic"),
    2: ("Spearman's rho with accuracy", "accuracy", "spearman", "p_asymptotic"),
    3: ("R² of terms of IIMM with gain over zero-shot error", GAIN, "r2", "p_slope"),
    5: ("R² of single measures with gain, all models together", GAIN, "r2", "p_slope"),
    6: ("R² of single measures with gain, by model", GAIN, "r2", "p_slope"),
}


FAMILIES = {"coca": "CoCa", "siglip": "SigLIP", "eva": "EVA-02", "clip": "CLIP"}
ORDER = ["all", "CoCa", "EVA-02", "CLIP", "SigLIP"]  # of the paper's columns


SAME, OTHER = "the paper's study", "another study"


COLUMNS = ["table", "label", "measure", "model", "family", "source", "study", "statistic", "n",
           "value", "p", "p_permutation"]  # fmt: skip


def get_model_family(model: str) -> str | None:
    """The paper's name of a model's family, by the model's name; None for another one."""
    return next((name for key, name in FAMILIES.items() if key in model.lower()), None)


def identify_paper_study(
    models: dict[str, dict], datasets: list[str], paper: Path
) -> dict[str, str]:
    """Model -> SAME where it is one of the paper's and the datasets are the paper's, else OTHER.

    models: the config's entries by name; paper: the config of the paper's study. Models are
    compared by their entries, but for what says how their jobs run, datasets by their names. "all"
    stands for the study.
    """

    def identity(entry: dict) -> dict:
        return {key: value for key, value in entry.items() if key not in JOB_KEYS}

    study = yaml.safe_load(Path(paper).read_text())
    same, theirs = set(datasets) == set(study["datasets"]), list(study["models"].values())
    known = list(map(identity, theirs))
    found = {
        name: SAME if same and identity(entry) in known else OTHER for name, entry in models.items()
    }
    complete = list(found.values()).count(SAME) == len(found) == len(theirs)
    return found | {"all": SAME if complete else OTHER}


def pooled_line(tasks: pd.DataFrame, measure: str) -> dict:
    """The fit of table 5: gain on one measure over all models' tasks, without a model's factor."""
    x, y = (tasks[name].to_numpy(float) for name in (measure, GAIN))
    some = np.isfinite(x) & np.isfinite(y)
    n = int(some.sum())
    if n < 3 or np.ptp(x[some]) == 0:
        return {"n": n}
    return {"n": n} | fit_line(x[some], y[some])


def make_paper_tables(
    statistics: pd.DataFrame, tasks: pd.DataFrame, studies: dict[str, str]
) -> pd.DataFrame:
    """Tables 1, 2, 3, 5 and 6, tidy: a row for each cell of the paper's and of this study's.

    source: "paper" or "ours"; study: see `identify_paper_study`, whose result is `studies`; statistic:
    spearman or r2. Ours are of full fine-tuning; p is asymptotic, as in the paper.
    """
    theirs = pd.read_csv(NUMBERS)
    tuned = tasks[tasks.method == "full"]
    rows = []
    for (table, measure, label), cells in theirs.groupby(["table", "measure", "label"], sort=False):
        _, outcome, statistic, p = PAPER_TABLES[table]
        facts = {"table": table, "label": label, "measure": measure, "statistic": statistic}
        for cell in cells.to_dict("records"):
            model = {"model": cell["family"], "family": cell["family"], "source": "paper"}
            counted = {"n": 36 if table == 5 else 9, "value": cell["value"], "p": cell["p"]}
            rows.append(facts | model | counted | {"study": SAME})
        if table == 5:
            found = [{"model": "all"} | pooled_line(tuned, measure)] if measure in tuned else []
        else:
            chosen = (statistics.method == "full") & (statistics.measure == measure)
            found = statistics[chosen & (statistics.outcome == outcome)].to_dict("records")
        for row in found:
            name = row["model"]
            family = "all" if name == "all" else get_model_family(name)
            model = {"model": name, "family": family, "source": "ours", "study": studies[name]}
            counted = {"n": row["n"], "value": row.get(statistic), "p": row.get(p)}
            exact = row.get("p_permutation") if statistic == "spearman" else None
            rows.append(facts | model | counted | {"p_permutation": exact})
    frame = pd.DataFrame(rows, columns=COLUMNS)
    numbers = ["value", "p", "p_permutation"]
    return frame.astype(dict.fromkeys(numbers, float))


def get_table_heads(cells: pd.DataFrame) -> list[dict]:
    """The columns of one table in the paper's form: of each model the paper's, then ours."""
    heads = cells[["source", "model", "family", "study"]].drop_duplicates()
    place = [ORDER.index(name) if name in ORDER else len(ORDER) for name in heads.family]
    heads = heads.assign(place=place).sort_values(
        ["place", "source"], ascending=[True, False], kind="stable"
    )
    said = {SAME: "this run of the paper's study", OTHER: "another study"}
    return [
        head | {"title": f"{head['model']}, "
                + ("the paper" if head["source"] == "paper" else said[head["study"]])}
        for head in heads.to_dict("records")
    ]  # fmt: skip


def format_markdown(tables: pd.DataFrame) -> str:
    """The tables in the paper's form: measures in rows; of each model the paper's, then ours."""
    text = ["# The paper's tables"]
    for table, cells in tables.groupby("table"):
        heads = get_table_heads(cells)
        text += ["", f"## Table {table}: {PAPER_TABLES[table][0]}", ""]
        text.append("| measure | " + " | ".join(head["title"] for head in heads) + " |")
        text.append("|---" * (len(heads) + 1) + "|")
        for label, row in cells.groupby("label", sort=False):
            own = {(c["source"], c["model"]): c for c in row.to_dict("records")}
            shown = [show_cell(own.get((h["source"], h["model"]))) for h in heads]
            text.append(f"| {label} | " + " | ".join(shown) + " |")
        if not (cells.source == "ours").any():
            text += ["", "This study has no full fine-tuning or none of these measures."]
    return "\n".join(text) + "\n"


def show_cell(cell: dict | None) -> str:
    """A value and its asymptotic p; dashes for what is not known."""
    if cell is None:
        return "–"
    p = f" (p {format_plain(cell['p'])})" if is_known(cell["p"]) else ""
    return format_number(cell["value"]) + p
