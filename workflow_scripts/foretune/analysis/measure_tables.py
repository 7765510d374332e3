"""Measures of all tasks as tables: values, what combines several models, intervals and curves."""

import numpy as np
import pandas as pd


def tabulate_measures(rows: list[dict]) -> tuple[pd.DataFrame, list[str]]:
    """One row for each (model, dataset) from the contents of the measures' files.

    Columns: model (none for embeddings from elsewhere), dataset, n_train, each measure; then its
    other forms as `measure.variant`, its interval as `measure.low` and `measure.high`, and
    `notes`. The names of the measures come beside the table.
    """
    # A file may be older than a measure that was switched on since; Snakemake makes it again.
    names = sorted({name for row in rows for name in row["measures"]}, key=get_reading_order)
    table = []
    for row in rows:
        facts = {"model": row.get("model"), "dataset": row.get("dataset", row.get("embeddings"))}
        notes, more = list(row.get("notes", [])), {}
        for name, detail in row.get("details", {}).items():
            more |= {f"{name}.{variant}": value for variant, value in detail["variants"].items()}
            low, high = detail["interval"] or (None, None)
            more |= {f"{name}.low": low, f"{name}.high": high}
            notes += [f"{name}: {note}" for note in detail["notes"]]
        table.append(facts | {"n_train": row["n"], **row["measures"], **more,
                              "notes": "; ".join(notes)})  # fmt: skip
    frame = pd.DataFrame(table)
    numbers = frame.columns.difference(["model", "dataset", "notes"])
    frame[numbers] = frame[numbers].astype(float)
    frame["n_train"] = frame.n_train.astype(int)
    if "ncti" in names:
        combine_ncti(frame)
    return frame, names


def get_reading_order(name: str) -> tuple[bool, str]:
    """IIMM, which the study is about, and then the others by name."""
    return name != "iimm", name


def combine_ncti(frame: pd.DataFrame) -> None:
    """Scale NCTI's terms to [0, 1] over each dataset's models, as the paper does, in place.

    A term on which all the models are equal tells nothing of them, and counts 0. A dataset of one
    model keeps the sum of the raw terms, which `ncti.seli`, `ncti.ncc` and `ncti.vc` always are.
    """
    terms = {"ncti.seli": 1, "ncti.ncc": 1, "ncti.vc": -1}
    if not set(terms) <= set(frame.columns):
        return
    known = frame[frame.model.notna() & frame.ncti.notna()]
    for _, group in known.groupby("dataset"):
        if len(group) < 2:
            continue
        least, most = group[list(terms)].min(), group[list(terms)].max()
        scaled = (group[list(terms)] - least) / (most - least).replace(0, np.inf)
        frame.loc[group.index, "ncti"] = sum(sign * scaled[name] for name, sign in terms.items())
        # The interval is of the raw sum.
        frame.loc[group.index, ["ncti.low", "ncti.high"]] = np.nan


def tabulate_curves(rows: list[dict]) -> pd.DataFrame:
    """One row for each (model, dataset, measure, n): how far n images are from all of them.

    deviation: root mean square over random subsets; relative: deviation over the standard
    deviation of the measure between the model's datasets, which is what it must tell apart;
    none for embeddings from elsewhere and where a model has one dataset.
    """
    columns = ["model", "dataset", "measure", "n", "mean", "deviation"]
    points = [
        {"model": row.get("model"), "dataset": row.get("dataset", row.get("embeddings")),
         "measure": name} | point
        for row in rows
        for name, detail in row.get("details", {}).items()
        for point in detail["curve"]
    ]  # fmt: skip
    curves = pd.DataFrame(points, columns=columns)
    values = pd.DataFrame(
        [{"model": row["model"], "measure": name, "value": value}
         for row in rows if row.get("model") is not None
         for name, value in row["measures"].items()],
        columns=["model", "measure", "value"],
    ).astype({"value": float})  # fmt: skip
    spread = values.groupby(["model", "measure"]).value.std().rename("spread")
    curves = curves.join(spread, on=["model", "measure"])
    # Values that are the same but for rounding have nothing to tell apart.
    size = values.value.abs().groupby([values.model, values.measure]).max().rename("size")
    curves = curves.join(size, on=["model", "measure"])
    spread = curves.spread.where(curves.spread > 1e-9 * curves["size"])
    curves["relative"] = curves.deviation / spread
    return curves.drop(columns=["spread", "size"])


def count_enough_images(curves: pd.DataFrame, share: float = 0.1) -> int | None:
    """The least n from which on every dataset of one (model, measure) deviates by at most `share`.

    None where even the largest subsets, of half the images, deviate more, or nothing is known.
    """
    if curves.empty or curves.relative.isna().any():
        return None
    needed = []
    for _, points in curves.groupby("dataset"):
        points = points.sort_values("n")
        bad = np.flatnonzero(points.relative > share)
        first = bad[-1] + 1 if len(bad) else 0
        if first == len(points):
            return None
        needed.append(int(points.n.iloc[first]))
    return max(needed)
