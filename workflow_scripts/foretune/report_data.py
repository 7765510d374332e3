"""What the report's page holds as data: compact columns, each thing once."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from foretune.measured import enough_images
from foretune.paper import GAIN
from foretune.wording import known

DIGITS = 6  # of a number in the page; the tables in results/analysis have all
TRIALS = 8  # of a run whose training is drawn: the chosen one and the next best
EPOCHS = 40  # of a trial that are drawn
ZERO_SHOT = "zero-shot"
MEANS = ("zero_shot_accuracy", "accuracy", GAIN, "ood_change", "shifted_change")
# Of a correlation's line: what the page draws its band from beside what its table shows.
BAND = ("intercept", "residual_sd", "x_mean", "x_squares")


def value_of(value, digits: int):
    """A value as JSON has it: null for what is not known, and no more digits than are shown."""
    if isinstance(value, list):
        return [value_of(each, digits) for each in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.{digits}g}") if np.isfinite(value) else None
    if not known(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def pack(frame: pd.DataFrame, columns: list[str] | None = None, digits: int = DIGITS) -> dict:
    """A table as columns; one of words as its different words and the place of each row's."""
    made = {}
    for name in columns or frame.columns:
        values = frame[name].astype(object).tolist()
        if any(isinstance(value, str) for value in values):
            codes, words = pd.factorize(frame[name].astype(object).where(frame[name].notna(), None))
            made[name] = {"words": list(words), "codes": codes.tolist()}  # -1: not known
        else:
            made[name] = [value_of(value, digits) for value in values]
    return {"n": len(frame), "columns": made}


def as_json(value) -> str:
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
    rows = []
    chosen = tasks.set_index(keys)[["trial", "best_epoch"]].to_dict("index")
    runs = pd.concat([pd.read_parquet(path) for path in epochs]) if epochs else pd.DataFrame()
    for key, run in runs.groupby(keys, sort=False) if len(runs) else ():
        varied = [name for name in ("rank", "reduction") if run[name].nunique() > 1]
        name = (varied or ["weight_decay"])[0]
        own = chosen.get(key, {})
        tops = run.groupby("trial").val_accuracy.max().sort_values(ascending=False, kind="stable")
        order = sorted(tops.index, key=lambda trial: trial != own.get("trial"))[:TRIALS]
        for trial in sorted(order):
            points = run[run.trial == trial].sort_values("epoch")
            best = own["best_epoch"] if trial == own.get("trial") else None
            if len(points) > EPOCHS:
                kept = np.linspace(0, len(points) - 1, EPOCHS).round().astype(int)
                points = points[points.epoch.isin({*points.epoch.iloc[kept], best})]
            first = points.iloc[0]
            rows.append([*key, int(trial), first["learning_rate_peak"], first[name], name, best,
                         points.epoch.tolist(), points.val_accuracy.tolist(),
                         len(tops) - len(order)])  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def mean_rows(tasks: pd.DataFrame) -> pd.DataFrame:
    """Means over datasets, a row for each model and method."""
    names = list(MEANS)
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
        "outcomes": pack(tested, ["model", "method", "trained_on", "test", "accuracy"], digits=4),
        "tests": pack(tested.drop_duplicates("test"), ["test", "n", "chance"]),
        "trade": pack(trade_rows(study["tasks"], study["wise_ft"])),
        "trials": pack(training_rows(epochs, study["tasks"]), digits=4),
        "curves": pack(curves[curves.measure.isin(measures)],
                       ["model", "dataset", "measure", "n", "relative"], digits=4),
        "confusions": pack(confused.assign(test=title_tests(confused)),
                           ["model", "method", "test", "class", "predicted", "n", "class_n"]),
    }  # fmt: skip


def table_data(tables: dict[str, tuple[dict, pd.DataFrame]]) -> dict[str, dict]:
    """Name -> packed data of tables: the columns that they show, and those of figures."""
    needed: dict[str, list[str]] = {"statistics": list(BAND), "tasks": ["trial", "shifted_change"]}
    frames = {}
    for shown, frame in tables.values():
        keys = [key for column in shown["columns"] for key in (column["key"], *column["beside"])]
        needed.setdefault(shown["data"], []).extend(keys)
        frames[shown["data"]] = frame
    return {name: pack(frame, list(dict.fromkeys(needed[name]))) for name, frame in frames.items()}


def enough_sentences(curves: pd.DataFrame, measures: list[str]) -> dict[str, dict[str, str]]:
    """Model -> measure -> from how many images on it is as good as from all."""
    shown = curves[curves.relative.notna() & curves.model.notna()]
    found: dict[str, dict[str, str]] = {}
    for (model, measure), own in shown.groupby(["model", "measure"], sort=False):
        if measure in measures:
            enough = enough_images(own)
            said = f"From {enough} images on, {measure} deviates by at most 10% on every dataset."
            if not enough:
                said = f"On some dataset, half of the images leave {measure} more than 10% off."
            found.setdefault(model, {})[measure] = said
    return found
