"""Prepare the data that the report's page embeds, as compact columns that are stored once."""

import base64
import gzip
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from foretune.analysis.measure_tables import count_enough_images
from foretune.analysis.outcomes import GAIN
from foretune.core.parquet import explain_parquet_errors
from foretune.core.variants import average_name
from foretune.training.trials import EPOCH_SCHEMA

SIGNIFICANT_DIGITS = 6  # of numbers in the page; the tables in results/analysis are exact
MAX_DRAWN_TRIALS = 8  # per run: the chosen trial and the next best ones
MAX_DRAWN_EPOCHS = 40  # per trial
ZERO_SHOT = "zero-shot"
MEAN_OUTCOMES = ("zero_shot_accuracy", "accuracy", GAIN, "ood_change", "shifted_change")
# Columns of `statistics` from which the page draws the band of a line; its table omits them.
BAND_COLUMNS = ("intercept", "residual_sd", "x_mean", "x_squares")
RUN_KEYS = ["model", "method", "dataset"]
# The columns of epochs that the report reads.
EPOCH_COLUMNS = [*RUN_KEYS, "trial", "learning_rate_peak", "weight_decay", "rank", "reduction",
                 "epoch", "val_accuracy"]  # fmt: skip
EMPTY_EPOCHS = EPOCH_SCHEMA.empty_table().select(EPOCH_COLUMNS)
TRIAL_COLUMNS = ("model", "method", "dataset", "trial", "rate", "varied", "name", "best", "epoch",
                 "accuracy", "left_out")  # fmt: skip


# Tables of which figures show one model at a time, and which the page decompresses by model.
SPLIT_TABLES = ("outcomes", "trials", "curves", "confusions")


class PageColumn(TypedDict):
    """A column of a table in the page; `beside` lists columns that are shown in the same cell."""

    key: str
    label: str
    kind: str
    beside: list[str]


class PageTable(TypedDict):
    """A table in the page; `data` names the packed data that it is drawn from."""

    caption: str
    data: str
    columns: list[PageColumn]
    rows: NotRequired[int]


# A table of the page, and the frame that holds its rows.
PageTableData = tuple[PageTable, pd.DataFrame]


def round_values(values, digits: int) -> list:
    """Round numbers to `digits` significant digits; values that are not finite become None.

    Integers are returned unchanged.
    """
    x = np.asarray(values)
    if x.dtype.kind in "iu":
        return x.tolist()
    finite = np.isfinite(x)
    magnitude = np.floor(np.log10(np.abs(x), out=np.zeros_like(x), where=finite & (x != 0)))
    # Only powers of ten from 1 upward, because those below 1 are not exact in binary.
    factor = 10.0 ** np.maximum(digits - 1 - magnitude, 0)
    divisor = 10.0 ** np.maximum(magnitude + 1 - digits, 0)
    rounded = np.where(finite, np.round(x * factor / divisor) / factor * divisor, 0)
    return [value if is_finite else None
            for value, is_finite in zip(rounded.tolist(), finite, strict=True)]  # fmt: skip


def pack_columns(
    frame: pd.DataFrame, columns: list[str] | None = None, digits: int = SIGNIFICANT_DIGITS
) -> dict[str, Any]:
    """Return a table as {"n": rows, "columns": {name: values}}, ready for JSON.

    A column of words is packed as its distinct words and, per row, the index of its word (-1 if
    unknown). A cell may also be a list of numbers. Floats are rounded to `digits` significant
    digits.
    """
    packed: dict[str, Any] = {}
    for name in columns or frame.columns:
        values = frame[name]
        if pd.api.types.is_float_dtype(values):
            packed[name] = round_values(values.to_numpy(float, na_value=np.nan), digits)
        elif isinstance(next(iter(values.dropna()), None), list):
            rounded = iter(round_values(list(itertools.chain(*values)), digits))
            packed[name] = [list(itertools.islice(rounded, len(value))) for value in values]
        elif isinstance(next(iter(values.dropna()), None), str):
            codes, words = pd.factorize(values)
            packed[name] = {"words": list(words), "codes": codes.tolist()}
        elif not values.isna().any():  # integers or booleans
            packed[name] = values.tolist()
        else:  # integers or booleans, some of them unknown, or only unknown values
            cells = values.astype(object).where(values.notna(), None).tolist()
            packed[name] = [c.item() if isinstance(c, np.generic) else c for c in cells]
    return {"n": len(frame), "columns": packed}


def format_json(value) -> str:
    """Return JSON that cannot end the script element that contains it, whatever names it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", " ").replace("\u2029", " ")


def compress_json(value) -> str:
    """Return JSON, compressed with gzip, in Base64. Tables of numbers shrink to about a third."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def make_trial_rows(epochs: list, tasks: pd.DataFrame) -> pd.DataFrame:
    """Return one row per drawn trial: what was varied, and its epochs with their accuracies.

    epochs: paths of the Parquet files with the epochs of all trials. Each run keeps at most
    MAX_DRAWN_TRIALS trials, the chosen one and the next best by validation accuracy. Each trial
    keeps about MAX_DRAWN_EPOCHS epochs, its best one among them.
    """
    selections = tasks.set_index(RUN_KEYS)[["trial", "best_epoch"]].to_dict("index")
    rows = []
    for frame in read_epochs(epochs):
        columns = {name: frame[name].to_numpy() for name in frame}
        for run, indices in frame.groupby(RUN_KEYS, sort=False).indices.items():
            rows += make_trial_rows_of_run(run, indices, columns, selections.get(run, {}))
    return pd.DataFrame(rows, columns=list(TRIAL_COLUMNS))


def read_epochs(paths: list[Path]) -> Iterator[pd.DataFrame]:
    """Yield the epochs of one model and method at a time: together they can be millions of rows.

    They are sorted by trial and epoch. Of the seeds of a method the first is read, and the method
    is named without it.

    paths: in the order of the rules, as `{model}/{method}/{dataset}/{part}/epochs.parquet`.
    """
    seen: dict[tuple[str, str], str] = {}
    for (folder,), files in itertools.groupby(paths, key=lambda path: Path(path).parents[2:3]):
        with explain_parquet_errors(folder):
            # Thousands of small files: without buffers and threads, each takes half the time.
            parts = [
                pq.ParquetFile(path, pre_buffer=False).read(EPOCH_COLUMNS, use_threads=False)
                for path in files
            ]
            table = pa.concat_tables([EMPTY_EPOCHS, *parts], promote_options="permissive")
        frame = table.sort_by([("trial", "ascending"), ("epoch", "ascending")]).to_pandas()
        runs = frame[["model", "method"]].drop_duplicates()
        for model, method in runs.itertuples(index=False):
            if seen.setdefault((model, average_name(method)), method) != method:
                frame = frame[(frame.model != model) | (frame.method != method)]
        names = {method: average_name(method) for method in runs.method}
        yield frame.assign(method=frame.method.map(names))


def make_trial_rows_of_run(
    run: tuple, indices: np.ndarray, columns: dict[str, np.ndarray], selection: dict
) -> list[list]:
    """Return the drawn trials of one run, in the order of TRIAL_COLUMNS.

    indices: the run's rows in `columns`, sorted by trial and epoch; selection: the chosen trial
    and its best epoch, or nothing.
    """
    ends = np.flatnonzero(np.diff(columns["trial"][indices])) + 1
    bounds = itertools.pairwise([0, *ends.tolist(), len(indices)])
    trials = [indices[start:end] for start, end in bounds]
    chosen = selection.get("trial")
    grids = [name for name in ("rank", "reduction") if len(set(columns[name][indices])) > 1]
    varied = (grids or ["weight_decay"])[0]
    # The chosen trial comes first, then the others by their best validation accuracy.
    trials.sort(key=lambda trial: (columns["trial"][trial[0]] != chosen,
                                   -columns["val_accuracy"][trial].max()))  # fmt: skip
    drawn = trials[:MAX_DRAWN_TRIALS]
    rows = []
    for trial in sorted(drawn, key=lambda trial: columns["trial"][trial[0]]):
        first = trial[0]
        number = int(columns["trial"][first])
        best = selection["best_epoch"] if number == chosen else None
        if len(trial) > MAX_DRAWN_EPOCHS:
            kept = trial[np.linspace(0, len(trial) - 1, MAX_DRAWN_EPOCHS).round().astype(int)]
            trial = np.union1d(kept, trial[columns["epoch"][trial] == best])
        rows.append([*run, number, columns["learning_rate_peak"][first], columns[varied][first],
                     varied, best, columns["epoch"][trial].tolist(),
                     columns["val_accuracy"][trial].tolist(),
                     len(trials) - len(drawn)])  # fmt: skip
    return rows


def average_over_datasets(tasks: pd.DataFrame) -> pd.DataFrame:
    """Return the mean outcomes over datasets, one row per model and method."""
    names = list(MEAN_OUTCOMES)
    runs = tasks.astype(dict.fromkeys(names, float)).groupby(["model", "method"], sort=False)
    return runs[names].mean().assign(n=runs.size()).reset_index()


def title_tests(tests: pd.DataFrame) -> pd.Series:
    """Return the title of each test: the dataset's name, then a shifted test's own name."""
    suffix = " · " + tests.split
    return tests.evaluated_on + suffix.where(tests.split != "test", "")


def pack_figure_data(
    study: dict[str, pd.DataFrame], measures: list[str], epochs: list[Path], models: list[str]
) -> dict[str, dict]:
    """Return the packed data of figures that no table of the page contains, by name.

    Those of SPLIT_TABLES are split by model, as `name-0` for the first of the models and so on.
    """
    outcomes = study["outcomes"]
    outcomes = outcomes[outcomes.wise_ft.fillna(1) == 1]  # interpolated weights: see "front"
    outcomes = outcomes.assign(test=title_tests(outcomes))
    own = outcomes[
        (outcomes.method == "zero_shot") | (outcomes.trained_on == outcomes.evaluated_on)
    ]
    curves = study["curves"].dropna(subset=["model", "relative"])
    confusions = study["confusions"]
    packed = {
        "own": pack_columns(own, ["model", "method", "test", "accuracy"], digits=4),
        "tests": pack_columns(outcomes.drop_duplicates("test"), ["test", "n", "chance"]),
    }
    split: dict[str, tuple[pd.DataFrame, list[str]]] = {
        "outcomes": (outcomes, ["model", "method", "trained_on", "test", "accuracy"]),
        "trials": (make_trial_rows(epochs, study["tasks"]), list(TRIAL_COLUMNS)),
        "curves": (curves[curves.measure.isin(measures)],
                   ["model", "dataset", "measure", "n", "relative"]),
        "confusions": (confusions.assign(test=title_tests(confusions)),
                       ["model", "method", "test", "class", "predicted", "n", "class_n"]),
    }  # fmt: skip
    for name in SPLIT_TABLES:
        frame, columns = split[name]
        rows = frame.groupby("model").indices
        for number, model in enumerate(models):
            of_model = frame.iloc[rows.get(model, [])]
            packed[f"{name}-{number}"] = pack_columns(of_model, columns, digits=4)
    return packed


def pack_tables(tables: dict[str, PageTableData]) -> dict[str, dict]:
    """Return the packed data of tables by name.

    Only those columns are kept that a table or a figure shows.
    """
    columns: dict[str, list[str]] = {
        "statistics": list(BAND_COLUMNS),
        "tasks": ["trial", "shifted_change"],
        "front": ["on_front"],
    }
    frames = {}
    for table, frame in tables.values():
        keys = [key for column in table["columns"] for key in (column["key"], *column["beside"])]
        columns.setdefault(table["data"], []).extend(keys)
        frames[table["data"]] = frame
    return {
        name: pack_columns(frame, list(dict.fromkeys(columns[name])))
        for name, frame in frames.items()
    }


def describe_enough_images(curves: pd.DataFrame, measures: list[str]) -> dict[str, dict[str, str]]:
    """Return a sentence per model and measure: how many images are as good as all images."""
    curves = curves[curves.relative.notna() & curves.measure.isin(measures)]
    sentences: dict[str, dict[str, str]] = {}
    for (model, measure), enough in count_enough_images(curves).items():
        sentences.setdefault(model, {})[measure] = (
            f"With {enough:.0f} images or more, {measure} deviates by at most 10% on every dataset."
            if enough < math.inf
            else f"On at least one dataset, {measure} still deviates by more than 10% "
            "when half of the images are used."
        )
    return sentences
