"""What fine-tuning would do to a dataset that was never fine-tuned, from a study's lines on IIMM.

A forecast for a (model, method) is the line of an outcome on iimm over the study's datasets, at
the new dataset's iimm, with statsmodels' 95% prediction interval, which holds the outcome of one
further dataset if errors are normal and alike. Beside it stands how far such forecasts are off
when each of the study's datasets is left out and forecast from the others.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from foretune.analysis.formatting import format_plain, is_known
from foretune.analysis.regression import least_squares_line
from foretune.core.errors import ForetuneError
from foretune.core.parquet import read_metadata

MIN_DATASETS = 4  # datasets: leaving one out leaves the three that a line with an error needs
# What is possible; a gain below 0 has a limit too, which the zero-shot accuracy sets.
OUTCOME_RANGES = {
    "gain_over_zero_shot_error": (-np.inf, 1), "accuracy": (0, 1), "ood_change": (-1, 1),
}  # fmt: skip
FORECAST_COLUMNS = ["dataset", "model", "method", "outcome", "n_train", "iimm", "n", "expected", "low",
            "high", "clipped", "study_low", "study_high", "study_mean", "outside", "loo_error",
            "loo_mean_error", "loo_rival_error", "loo_rivals", "note"]  # fmt: skip
OUTCOME_PHRASES = {
    "gain_over_zero_shot_error": "gain over zero-shot error", "accuracy": "accuracy",
    "ood_change": "change on other tasks (forgetting)",
}  # fmt: skip
RANKING_COLUMNS = ["dataset", "rank", "model", "method", "weight", "score", "gain_over_zero_shot_error",
           "ood_change", "note"]  # fmt: skip


def read_study_results(folder: Path) -> tuple[pd.DataFrame, dict]:
    """A study's tasks, and the names of its `measures` and each model's `weights`, by digest.

    folder: its `results/analysis`. Raises ForetuneError, naming the file, where there is no study
    or it did not measure IIMM.
    """
    path = Path(folder) / "tasks.parquet"
    facts = read_metadata(path)
    if "iimm" not in facts.get("measures", []):
        raise ForetuneError(f"{path}: the study has no iimm to forecast from")
    return pd.read_parquet(path), {"weights": {}} | facts


def select_tasks(
    tasks: pd.DataFrame, facts: dict, study: Path, new: dict, path: Path
) -> pd.DataFrame:
    """The study's tasks of the model that measured `new`, the content of the file at `path`.

    Raises ForetuneError where the study has no such model, or one of this name with other weights.
    """
    model = new["model"]
    own = tasks[tasks.model == model]
    if own.empty:
        have = ", ".join(sorted(set(tasks.model))) or "none"
        raise ForetuneError(f"{path}: {study} has no model {model}; its models: {have}")
    theirs = facts["weights"].get(model, "none that it tells (run it again)")
    if theirs != new["weights"]:
        raise ForetuneError(
            f"{path}: model {model} is not the one of {study}: its weights are "
            f"{new['weights'][:12]}, the study's {theirs[:40]}; "
            f"forecast with the study's model, or from a study of this one"
        )
    return own


def forecast_outcome(x: np.ndarray, y: np.ndarray, at: float, outcome: str) -> dict:
    """The line of y on x at a new x: expected, low and high, clipped to what is possible.

    x, y: (n,), finite, n >= 4, x not constant; clipped: whether a limit of RANGES was passed.
    """
    frame = least_squares_line(x, y).get_prediction([[1, at]]).summary_frame(alpha=0.05)
    free = frame[["mean", "obs_ci_lower", "obs_ci_upper"]].to_numpy()[0]
    kept = np.clip(free, *OUTCOME_RANGES[outcome])
    return {
        **dict(zip(("expected", "low", "high"), map(float, kept), strict=True)),
        "clipped": bool((kept != free).any()),
    }


def best_rival(measures: np.ndarray, y: np.ndarray) -> int | None:
    """The row of measures (m, n) with the highest R^2 with y (n,); None where all are constant."""
    centred = measures - measures.mean(axis=1, keepdims=True)
    square = np.square(centred).sum(axis=1)
    explained = (centred @ (y - y.mean())) ** 2 / np.where(square > 0, square, np.nan)
    return None if np.isnan(explained).all() else int(np.nanargmax(explained))


def leave_one_out(tasks: pd.DataFrame, outcome: str, names: list[str]) -> dict:
    """Mean absolute errors of forecasts of each of the tasks from the others.

    loo_error: of the line on iimm; loo_mean_error: of the others' mean outcome; loo_rival_error:
    of the line on the measure of `names`, but for iimm, that has the highest R^2 on the others,
    so that it may differ from fold to fold: loo_rivals counts how often each was chosen. Measures
    that lack a value are no rivals. All forecasts are clipped to what is possible.
    """
    y, x = tasks[outcome].to_numpy(float), tasks.iimm.to_numpy(float)
    rivals = [
        name for name in names if name != "iimm" and np.isfinite(tasks[name].to_numpy(float)).all()
    ]
    others = tasks[rivals].to_numpy(float).T
    errors, chosen = {"iimm": [], "mean": [], "rival": []}, []
    for i in range(len(y)):
        fold = np.arange(len(y)) != i

        def miss(z, i=i, fold=fold):
            said = least_squares_line(z[fold], y[fold]).predict([[1, z[i]]])[0]
            return abs(np.clip(said, *OUTCOME_RANGES[outcome]) - y[i])

        if np.ptp(x[fold]) > 0:
            errors["iimm"].append(miss(x))
        errors["mean"].append(abs(y[fold].mean() - y[i]))
        best = best_rival(others[:, fold], y[fold]) if rivals else None
        if best is not None:
            errors["rival"].append(miss(others[best]))
            chosen.append(rivals[best])
    # An error over some of the folds is no match for one over all.
    mean = {k: float(np.mean(v)) if len(v) == len(y) else np.nan for k, v in errors.items()}
    counts = pd.Series(chosen, dtype=str).value_counts()
    return {
        "loo_error": mean["iimm"], "loo_mean_error": mean["mean"],
        "loo_rival_error": mean["rival"],
        "loo_rivals": ", ".join(f"{name} {count}" for name, count in counts.items()),
    }  # fmt: skip


def forecast_datasets(study: Path, measures: list[Path], weight: float):
    """Tables of forecasts and of rankings for the datasets of measures' files.

    study: a study's `results/analysis`; measures: JSON files of (model, dataset) as `measure`
    writes them; weight: of forgetting against gain, see `rank_runs`.

    Raises ForetuneError, naming the file, where the study has no tasks of the model, or of one
    with other weights, and where the dataset's iimm is undefined.
    """
    tasks, facts = read_study_results(study)
    rows, errors = [], {}
    for path in measures:
        new = json.loads(Path(path).read_text())
        at = new["measures"].get("iimm")
        if at is None:
            said = "; ".join(new.get("details", {}).get("iimm", {}).get("notes", []))
            raise ForetuneError(f"{path}: iimm is not known{said and f' ({said})'}: no forecast")
        own = select_tasks(tasks, facts, study, new, path)
        same_name = bool((own.dataset == new["dataset"]).any())
        for method, group in own[own.dataset != new["dataset"]].groupby("method"):
            for outcome in OUTCOME_RANGES:
                some = group[np.isfinite(group[["iimm", outcome]].to_numpy(float)).all(axis=1)]
                key = (new["model"], method, outcome, tuple(some.dataset))
                if key not in errors and has_enough_datasets(some):
                    errors[key] = leave_one_out(some, outcome, facts["measures"])
                rows.append(
                    {"dataset": new["dataset"], "model": new["model"], "method": method,
                     "outcome": outcome, "n_train": new["n"], "iimm": at,
                     **forecast_pair(some, outcome, at, same_name), **errors.get(key, {})}
                )  # fmt: skip
    frame = pd.DataFrame(rows, columns=FORECAST_COLUMNS)
    numbers = ["expected", "low", "high", "study_low", "study_high", "study_mean", "loo_error",
               "loo_mean_error", "loo_rival_error"]  # fmt: skip
    flags = dict.fromkeys(["clipped", "outside"], "boolean")
    frame = frame.astype(dict.fromkeys(numbers, float) | flags)
    return frame, rank_runs(frame, weight)


def has_enough_datasets(tasks: pd.DataFrame) -> bool:
    return len(tasks) >= MIN_DATASETS and np.ptp(tasks.iimm.to_numpy(float)) > 0


def forecast_pair(some: pd.DataFrame, outcome: str, at: float, same_name: bool) -> dict:
    """One cell: the forecast of an outcome from a study's tasks, or a note that says why none."""
    x, y = some.iimm.to_numpy(float), some[outcome].to_numpy(float)
    row, notes = {"n": len(some)}, []
    if same_name:
        notes.append("the study has a dataset of this name, which is left out")
    if len(some) < MIN_DATASETS:
        notes.append(f"n = {len(some)}: too few datasets with this outcome for a forecast")
    elif not has_enough_datasets(some):
        notes.append("iimm is the same for every dataset of the study")
    else:
        low, high = float(x.min()), float(x.max())
        outside = not low <= at <= high
        row |= {"study_low": low, "study_high": high, "study_mean": y.mean(), "outside": outside}
        row |= forecast_outcome(x, y, at, outcome)
        if outside:
            notes.append("iimm lies outside the study's range: the line is extended")
    return row | {"note": "; ".join(notes)}


def rank_runs(forecasts: pd.DataFrame, weight: float) -> pd.DataFrame:
    """Models and methods for each dataset, the best first.

    score = (1 - weight) gain + weight ood_change of the expected values, so that weight 0 asks for
    gain alone and 1 for the least forgetting. What lacks a part that counts, as a probe does,
    which has no head for other tasks' classes, comes last and has no rank.
    """
    gain, ood = "gain_over_zero_shot_error", "ood_change"
    key = ["dataset", "model", "method"]
    wide = forecasts.pivot(index=key, columns="outcome", values="expected")
    wide = wide.reindex(columns=[gain, ood]).reset_index()
    parts = [(share, wide[name]) for share, name in ((1 - weight, gain), (weight, ood)) if share]
    wide["score"] = sum(share * values for share, values in parts)
    wide["rank"] = wide.groupby("dataset").score.rank(ascending=False, method="min").astype("Int64")
    wide["note"] = np.where(wide.score.isna(), "not ranked: a part of the score is not known", "")
    return wide.assign(weight=float(weight))[RANKING_COLUMNS].sort_values(
        ["dataset", "rank", "model", "method"], ignore_index=True
    )


def describe_forecasts(forecasts: pd.DataFrame, rankings: pd.DataFrame) -> str:
    """What `forecast_datasets` found, as a text for a terminal: the best choice, then all."""
    gain, lines = "gain_over_zero_shot_error", []
    for dataset, ranking in rankings.groupby("dataset", sort=False):
        own = forecasts[forecasts.dataset == dataset]
        cells = {key: row.iloc[0] for key, row in own.groupby(["model", "method", "outcome"])}
        lines += [f"{dataset}, measured on {own.n_train.iloc[0]} training images", ""]
        best = ranking.iloc[0]
        run = best.model, best.method
        if is_known(cells[*run, gain].expected):
            lines += [f"best: {run[0]}, {run[1]}"]
            lines += [
                f"  {said}: {format_with_interval(cells[*run, name])}"
                for name, said in OUTCOME_PHRASES.items()
            ]
            lines += ["  " + describe_trust(cells[*run, gain]), ""]
        table = [("", "model", "method", "gain", "accuracy", "other tasks")]
        table += [
            (format_plain(row["rank"]) + "." if is_known(row["rank"]) else "", row["model"], row["method"],
             *(format_decimal(cells[row["model"], row["method"], name].expected) for name in OUTCOME_PHRASES))
            for row in ranking.to_dict("records")
        ]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
        for note, group in own[(own.note != "") & (own.n > 0)].groupby("note", sort=False):
            models = ", ".join(dict.fromkeys(group.model))
            lines += ["", f"warning: {models}: {note}"]
        lines += [""]
    weight = rankings.weight.iloc[0] if len(rankings) else 0
    lines += [
        f"Ranked by {format_plain(1 - weight)} gain + {format_plain(weight)} change on other tasks."
    ]
    return "\n".join(lines) + "\n"


def format_decimal(value: float) -> str:
    return f"{round(value, 2) + 0:.2f}".replace("-", "−") if is_known(value) else "–"  # no −0.00


def format_with_interval(cell: pd.Series) -> str:
    return f"{format_decimal(cell.expected)} (95%: {format_decimal(cell.low)} to {format_decimal(cell.high)})"


def describe_trust(cell: pd.Series) -> str:
    """How far the study's own datasets were off, by iimm and by what needs no iimm."""
    said = f"of the study's {cell.n} datasets, such forecasts of gain were off by "
    said += (
        f"{format_decimal(cell.loo_error)},\n  its mean by {format_decimal(cell.loo_mean_error)}, "
    )
    said += f"the best other measure by {format_decimal(cell.loo_rival_error)}"
    best = np.nanmin([cell.loo_mean_error, cell.loo_rival_error])
    return said + (": iimm forecasts nothing here" if cell.loo_error >= best else "")
