"""What the report's page holds as data: compact columns, each thing once."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from foretune.analysis.measure_tables import count_enough_images
from foretune.analysis.outcomes import GAIN

SIGNIFICANT_DIGITS = 6  # of a number in the page; the tables in results/analysis have all
MAX_DRAWN_TRIALS = 8  # of a run whose training is drawn: the chosen one and the next best
MAX_DRAWN_EPOCHS = 40  # of a trial that are drawn
ZERO_SHOT = "zero-shot"
MEAN_OUTCOMES = ("zero_shot_accuracy", "accuracy", GAIN, "ood_change", "shifted_change")
# Of a correlation's line: what the page draws its band from beside what its table shows.
BAND_COLUMNS = ("intercept", "residual_sd", "x_mean", "x_squares")


def round_values(values, digits: int) -> list:
    """Numbers with so many significant digits; None for what is not finite, whole ones as is."""
    x = np.asarray(values)
    if x.dtype.kind in "iu":
        return x.tolist()
    finite = np.isfinite(x)
    size = np.floor(np.log10(np.abs(x), out=np.zeros_like(x), where=finite & (x != 0)))
    # By powers of ten from 1 on, which are exact where those below 1 are not.
    more, less = 10.0 ** np.maximum(digits - 1 - size, 0), 10.0 ** np.maximum(size + 1 - digits, 0)
    shown = np.where(finite, np.round(x * more / less) / more * less, 0)
    return [value if there else None for value, there in zip(shown.tolist(), finite, strict=True)]


def pack_columns(
    frame: pd.DataFrame, columns: list[str] | None = None, digits: int = SIGNIFICANT_DIGITS
) -> dict:
    """A table as columns; one of words as its different words and the place of each row's.

    A cell may be a list of numbers; digits: significant ones of what is not whole.
    """
    made = {}
    for name in columns or frame.columns:
        values = frame[name]
        if pd.api.types.is_float_dtype(values):
            made[name] = round_values(values.to_numpy(float, na_value=np.nan), digits)
        elif any(isinstance(value, list) for value in values):
            made[name] = [round_values(value, digits) for value in values]
        elif any(isinstance(value, str) for value in values):
            codes, words = pd.factorize(values.astype(object).where(values.notna(), None))
            made[name] = {"words": list(words), "codes": codes.tolist()}  # -1: not known
        else:  # whole numbers, flags, or nothing at all
            whole = values.astype(object).where(values.notna(), None).tolist()
            made[name] = [each.item() if isinstance(each, np.generic) else each for each in whole]
    return {"n": len(frame), "columns": made}


def format_json(value) -> str:
    """JSON that is text within a script element, whatever the names in it."""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return written.replace("<", "\\u003c").replace("\u2028", " ").replace("\u2029", " ")


def training_rows(epochs: list, tasks: pd.DataFrame) -> pd.DataFrame:
    """One row for each drawn trial: what was varied, and its epochs with their accuracies.

    epochs: paths of the trials' files. Of each run the chosen trial and the next best are kept,
    TRIALS in all, and of each trial EPOCHS epochs, its best one among them.
    """
    keys = ["model", "method", "dataset"]
    columns = [*keys, "trial", "rate", "varied", "name", "best", "epoch", "accuracy", "left_out"]
    if not epochs:
        return pd.DataFrame(columns=columns)
    every = pd.concat([pd.read_parquet(path) for path in epochs], ignore_index=True)
    every = every.sort_values([*keys, "trial", "epoch"], kind="stable", ignore_index=True)
    chosen = tasks.set_index(keys)[["trial", "best_epoch"]].to_dict("index")
    column = {name: every[name].to_numpy() for name in every}
    rows = []
    for key, run in every.groupby(keys, sort=False).indices.items():
        trials = np.split(run, np.flatnonzero(np.diff(column["trial"][run])) + 1)
        own = chosen.get(key, {})
        grids = [name for name in ("rank", "reduction") if len(set(column[name][run])) > 1]
        name = (grids or ["weight_decay"])[0]
        # The chosen one first, then by the best validation accuracy.
        trials.sort(key=lambda at: (column["trial"][at[0]] != own.get("trial"),
                                    -column["val_accuracy"][at].max()))  # fmt: skip
        for at in sorted(trials[:MAX_DRAWN_TRIALS], key=lambda at: column["trial"][at[0]]):
            trial = int(column["trial"][at[0]])
            best = own["best_epoch"] if trial == own.get("trial") else None
            if len(at) > MAX_DRAWN_EPOCHS:
                kept = at[np.linspace(0, len(at) - 1, MAX_DRAWN_EPOCHS).round().astype(int)]
                at = np.union1d(kept, at[column["epoch"][at] == best])
            rows.append([*key, trial, column["learning_rate_peak"][at[0]], column[name][at[0]],
                         name, best, column["epoch"][at].tolist(),
                         column["val_accuracy"][at].tolist(),
                         len(trials) - len(trials[:MAX_DRAWN_TRIALS])])  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def mean_rows(tasks: pd.DataFrame) -> pd.DataFrame:
    """Means over datasets, a row for each model and method."""
    names = list(MEAN_OUTCOMES)
    runs = tasks.astype(dict.fromkeys(names, float)).groupby(["model", "method"], sort=False)
    return runs[names].mean().assign(n=runs.size()).reset_index()


def trade_rows(tasks: pd.DataFrame, wise_ft: pd.DataFrame) -> pd.DataFrame:
    """Means over datasets of gain and forgetting, by model, method and WiSE-FT's coefficient."""
    every = pd.concat([tasks.assign(wise_ft=1.0), wise_ft[wise_ft.wise_ft < 1]])
    every = every[every.ood_change.notna() & every[GAIN].notna()]
    keys = ["model", "method", "wise_ft"]
    means = every.astype({GAIN: float, "ood_change": float}).groupby(keys, sort=False)
    means = means[[GAIN, "ood_change"]].mean().rename(columns={GAIN: "gain"}).reset_index()
    # Where all coefficients begin: the zero-shot model gains and forgets nothing.
    begun = means[means.wise_ft < 1][["model", "method"]].drop_duplicates()
    begun = begun.assign(wise_ft=0.0, gain=0.0, ood_change=0.0)
    return pd.concat([means[means.wise_ft > 0], begun]).sort_values(keys, ignore_index=True)


def title_tests(tests: pd.DataFrame) -> pd.Series:
    """What a test is called: the dataset's name, and of a shifted test its own name too."""
    shifted = " · " + tests.split
    return tests.evaluated_on + shifted.where(tests.split != "test", "")


def figure_data(
    study: dict[str, pd.DataFrame], measures: list[str], epochs: list[Path]
) -> dict[str, dict]:
    """Name -> packed data that figures are drawn from and that no table has."""
    tested = study["outcomes"]
    tested = tested[tested.wise_ft.fillna(1) == 1]  # interpolations have a figure of their own
    tested = tested.assign(test=title_tests(tested))
    curves = study["curves"].dropna(subset=["model", "relative"])
    confused = study["confusions"]
    return {
        "outcomes": pack_columns(tested, ["model", "method", "trained_on", "test", "accuracy"], digits=4),
        "tests": pack_columns(tested.drop_duplicates("test"), ["test", "n", "chance"]),
        "trade": pack_columns(trade_rows(study["tasks"], study["wise_ft"])),
        "trials": pack_columns(training_rows(epochs, study["tasks"]), digits=4),
        "curves": pack_columns(curves[curves.measure.isin(measures)],
                       ["model", "dataset", "measure", "n", "relative"], digits=4),
        "confusions": pack_columns(confused.assign(test=title_tests(confused)),
                           ["model", "method", "test", "class", "predicted", "n", "class_n"]),
    }  # fmt: skip


def table_data(tables: dict[str, tuple[dict, pd.DataFrame]]) -> dict[str, dict]:
    """Name -> packed data of tables: the columns that they show, and those of figures."""
    needed: dict[str, list[str]] = {
        "statistics": list(BAND_COLUMNS),
        "tasks": ["trial", "shifted_change"],
    }
    frames = {}
    for shown, frame in tables.values():
        keys = [key for column in shown["columns"] for key in (column["key"], *column["beside"])]
        needed.setdefault(shown["data"], []).extend(keys)
        frames[shown["data"]] = frame
    return {
        name: pack_columns(frame, list(dict.fromkeys(needed[name])))
        for name, frame in frames.items()
    }


def describe_enough_images(curves: pd.DataFrame, measures: list[str]) -> dict[str, dict[str, str]]:
    """Model -> measure -> from how many images on it is as good as from all."""
    shown = curves[curves.relative.notna() & curves.model.notna()]
    found: dict[str, dict[str, str]] = {}
    for (model, measure), own in shown.groupby(["model", "measure"], sort=False):
        if measure in measures:
            enough = count_enough_images(own)
            said = f"From {enough} images on, {measure} deviates by at most 10% on every dataset."
            if not enough:
                said = f"On some dataset, half of the images leave {measure} more than 10% off."
            found.setdefault(model, {})[measure] = said
    return found
