"""Tables of the measures of all tasks: values, their forms and intervals, and learning curves."""

import math
from typing import Any, NotRequired, TypedDict

import numpy as np
import pandas as pd

SUFFICIENT_DEVIATION = 0.1  # as a share of the standard deviation between datasets


class CurvePoint(TypedDict):
    """The error of a measure on `n` random images, against its value on all of them."""

    n: int
    mean: float
    deviation: float  # root mean square


class MeasureDetail(TypedDict):
    """A measure's 95% interval over images, curve, other forms and notes."""

    interval: list[float] | None
    curve: list[CurvePoint]
    variants: dict[str, float | None]
    notes: list[str]


class MeasuresFile(TypedDict):
    """The JSON file of the measures of one (model, dataset), or of embeddings from elsewhere."""

    model: NotRequired[str]  # these three are missing for embeddings from elsewhere
    dataset: NotRequired[str]
    weights: NotRequired[str]  # digest of the model's weights
    embeddings: NotRequired[str]  # their name in the config
    n: int  # training images
    measures: dict[str, float | None]
    details: NotRequired[dict[str, MeasureDetail]]
    notes: NotRequired[list[str]]


def tabulate_measures(files: list[MeasuresFile]) -> tuple[pd.DataFrame, list[str]]:
    """Return a table with one row per (model, dataset), and the names of the measures.

    Columns: model (None for embeddings from elsewhere), dataset, n_train, each measure; then its
    other forms as `measure.variant`, its interval as `measure.low` and `measure.high`, and
    `notes`.
    """
    # A file may be older than a measure that was switched on since; Snakemake will rerun it.
    names = sorted({name for file in files for name in file["measures"]}, key=get_reading_order)
    rows = []
    for file in files:
        notes = list(file.get("notes", []))
        details: dict[str, float | None] = {}
        for name, detail in file.get("details", {}).items():
            details |= {f"{name}.{form}": value for form, value in detail["variants"].items()}
            low, high = detail["interval"] or (None, None)
            details |= {f"{name}.low": low, f"{name}.high": high}
            notes += [f"{name}: {note}" for note in detail["notes"]]
        rows.append({**name_task(file), "n_train": file["n"], **file["measures"], **details,
                     "notes": "; ".join(notes)})  # fmt: skip
    frame = pd.DataFrame(rows, columns=None if rows else ["model", "dataset", "n_train", "notes"])
    numbers = frame.columns.difference(["model", "dataset", "notes"])
    frame[numbers] = frame[numbers].astype(float)
    frame["n_train"] = frame.n_train.astype(int)
    if "ncti" in names:
        combine_ncti(frame)
    return frame, names


def join_rehearsals(
    measured: list[MeasuresFile], rehearsals: list[MeasuresFile]
) -> list[MeasuresFile]:
    """Add the predictors of each (model, dataset) to its measures."""
    by_task = {tuple(name_task(file).values()): file for file in rehearsals}
    joined: list[MeasuresFile] = []
    for file in measured:
        rehearsal = by_task.get(tuple(name_task(file).values()))
        if rehearsal:
            joined.append({
                **file,
                "measures": file["measures"] | rehearsal["measures"],
                "details": file.get("details", {}) | rehearsal.get("details", {}),
                "notes": [*file.get("notes", []), *rehearsal.get("notes", [])],
            })  # fmt: skip
        else:
            joined.append(file)
    return joined


def name_task(file: MeasuresFile) -> dict[str, Any]:
    """Return the columns `model` and `dataset` of a file's rows."""
    return {"model": file.get("model"), "dataset": file.get("dataset", file.get("embeddings"))}


def get_reading_order(name: str) -> tuple[bool, str]:
    """Return a sort key that puts IIMM, the study's subject, before all others by name."""
    return name != "iimm", name


def combine_ncti(frame: pd.DataFrame) -> None:
    """Replace each dataset's `ncti` in place by the sum of its terms scaled over the models.

    As in the NCTI paper, each term is scaled to [0, 1] over the models of a dataset. A term that
    is equal for all models cannot rank them and counts 0. A dataset of one model keeps the sum of
    the raw terms. The columns `ncti.seli`, `ncti.ncc` and `ncti.vc` always hold the raw terms.
    """
    signs = {"ncti.seli": 1, "ncti.ncc": 1, "ncti.vc": -1}
    if not set(signs) <= set(frame.columns):
        return
    known = frame[frame.model.notna() & frame.ncti.notna()]
    for _, group in known.groupby("dataset"):
        if len(group) < 2:
            continue
        terms = group[list(signs)]
        lowest, highest = terms.min(), terms.max()
        scaled = (terms - lowest) / (highest - lowest).replace(0, np.inf)
        frame.loc[group.index, "ncti"] = sum(sign * scaled[name] for name, sign in signs.items())
        # The interval belongs to the raw sum.
        frame.loc[group.index, ["ncti.low", "ncti.high"]] = np.nan


def tabulate_curves(files: list[MeasuresFile]) -> pd.DataFrame:
    """Return one row per (model, dataset, measure, n): how far n images are from all of them.

    deviation: root mean square over random subsets; relative: deviation divided by the standard
    deviation of the measure between the model's datasets, which is what the measure must tell
    apart. relative is NaN for embeddings from elsewhere and for a model with one dataset.
    """
    points = [
        name_task(file) | {"measure": name} | dict(point)
        for file in files
        for name, detail in file.get("details", {}).items()
        for point in detail["curve"]
    ]
    columns = ["model", "dataset", "measure", "n", "mean", "deviation"]
    curves = pd.DataFrame(points, columns=columns)
    values = pd.DataFrame(
        [{"model": file["model"], "measure": name, "value": value}
         for file in files if file.get("model") is not None
         for name, value in file["measures"].items()],
        columns=["model", "measure", "value"],
    ).astype({"value": float})  # fmt: skip
    spread = values.groupby(["model", "measure"]).value.std().rename("spread")
    curves = curves.join(spread, on=["model", "measure"])
    # Values that differ only by rounding count as equal.
    size = values.value.abs().groupby([values.model, values.measure]).max().rename("size")
    curves = curves.join(size, on=["model", "measure"])
    spread = curves.spread.where(curves.spread > 1e-9 * curves["size"])
    curves["relative"] = curves.deviation / spread
    return curves.drop(columns=["spread", "size"])


def count_enough_images(curves: pd.DataFrame, share: float = SUFFICIENT_DEVIATION) -> pd.Series:
    """Return for each (model, measure) the least n from which on no dataset deviates more.

    curves: rows of `tabulate_curves`. A dataset deviates more if its relative deviation is above
    `share`. The result is infinite if even the largest subsets, which have half of the images,
    deviate more on some dataset.
    """
    curve, run = ["model", "measure", "dataset"], ["model", "measure"]
    points = curves.sort_values("n")
    above = points.n.where(points.relative > share).groupby([points[key] for key in curve]).max()
    points = points.join(above.rename("above"), on=curve)
    within = points.n.where(points.above.isna() | (points.n > points.above), math.inf)
    sufficient = within.groupby([points[key] for key in curve]).min()
    return sufficient.groupby(run, sort=False).max()
