"""Build the forecast page: one HTML file with the answers, figures and images of a forecast.

It is made with the report's template, style, scripts and tables. Each dataset that was forecast
has a section; its later parts speak about the first choice, the best-ranked model and method.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from foretune.analysis.formatting import is_known
from foretune.analysis.outcomes import GAIN
from foretune.core.files import read_json
from foretune.core.parquet import read_frame
from foretune.data.notes import read_notes
from foretune.data.prepared import read_manifest
from foretune.forecast.rehearsal import PREDICTORS, RehearsalFile
from foretune.report.build import REPORT_OUTCOMES, write_page
from foretune.report.charts import PALETTE, make_specifications
from foretune.report.forecast_answers import (
    DatasetForecast,
    answer_forecast,
    select_dataset,
    select_run,
)
from foretune.report.forecast_charts import FORECAST_CHARTS
from foretune.report.forecast_images import describe_images
from foretune.report.page_data import PageTableData, pack_columns, pack_tables
from foretune.report.page_tables import (
    RUN_COLUMN_SPECS,
    ColumnSpecs,
    drop_empty_columns,
    make_table,
)

FORECAST_TABLES = ("forecasts", "candidates", "rankings", "learning")
FORECAST_SCRIPTS = ("data.js", "tables.js", "charts.js", "forecast.js", "page.js")
# The first of these that the study's table has places the dataset among those of the study.
PLACE_PREDICTORS = ("hidden_probe_accuracy", "train_zero_shot_accuracy")
PROBE_SERIES = "linear probe, cross-validated"
# Outcomes in the order of the page -> their heading in a table, and the format of their values.
TABLE_OUTCOMES = {
    "accuracy": ("accuracy", "percent"),
    "ood_change": ("other tasks (points)", "points"),
    GAIN: ("gain", "number"),
    "shifted_change": ("shifted tests (points)", "points"),
}
CANDIDATE_COLUMN_SPECS: ColumnSpecs = {
    "method": ("method", "text"), "outcome": ("outcome", "outcome"),
    "candidate": ("candidate", "text"), "loo_error": ("leave-one-out error", "number"),
    "n": ("study’s datasets", "plain"), "chosen": ("chosen", "text"),
}  # fmt: skip
LEARNING_COLUMN_SPECS: ColumnSpecs = RUN_COLUMN_SPECS | {
    "times": ("times as many", "plain"), "n": ("images", "plain"),
    "expected": ("accuracy", "percent", "low", "high"),
}  # fmt: skip
CLASS_COLUMN_SPECS: ColumnSpecs = {
    "class": ("class", "text"), "n": ("images", "plain"), "zero_shot": ("zero-shot", "percent"),
    "probe": ("probe", "percent"),
}  # fmt: skip


def build_forecast_page(
    forecast: Path, rehearsals: Path, datasets: Path, tasks: Path, output: Path
) -> None:
    """Write the page of all datasets that were forecast.

    Args:
        forecast: folder with the tables FORECAST_TABLES.
        rehearsals: folder with {model}/{dataset}.json and {model}/{dataset}_images.parquet.
        datasets: folder with {dataset}/dataset.json, notes.json and train.parquet.
        tasks: Parquet table `tasks` of the study that the forecasts rest on.
        output: HTML file to write.

    Raises:
        ForetuneError: an image is missing or cannot be decoded.
    """
    frames = {name: read_frame(Path(forecast) / f"{name}.parquet") for name in FORECAST_TABLES}
    study = read_frame(tasks)
    names = list(dict.fromkeys(frames["rankings"].dataset))
    forecasts = [select_dataset(frames, name) for name in names]
    sections, learning, places = [], [], []
    tables: dict[str, PageTableData] = {}
    for number, item in enumerate(forecasts):
        rehearsal = read_rehearsal(rehearsals, item)
        predictor = find_place_predictor(study, rehearsal)
        sections.append(
            describe_section(item, rehearsal, predictor)
            | describe_classes(item, rehearsals, datasets)
            | {"preparation": read_notes(Path(datasets) / item.dataset)}
        )
        tables |= make_section_tables(number, item, frames["candidates"], rehearsal)
        learning.append(make_learning_rows(item, rehearsal))
        places.append(make_place_rows(item, study, rehearsal, predictor))
    packed = pack_tables(tables) | {
        "forecasts": pack_columns(prepare_drawn_forecasts(frames["forecasts"])),
        "rankings": pack_columns(frames["rankings"], ["dataset", "model", "method"]),
        "learning": pack_columns(pd.concat(learning)), "places": pack_columns(pd.concat(places)),
    }  # fmt: skip
    known = frames["forecasts"][frames["forecasts"].expected.notna()]
    outcomes = {
        name: REPORT_OUTCOMES[name] for name in TABLE_OUTCOMES if name in set(known.outcome)
    }
    settings = {
        "colours": PALETTE, "outcomes": outcomes, "runs": [],
        "forecasts": [{key: section[key] for key in ("dataset", "run", "predictor")}
                      for section in sections],
    }  # fmt: skip
    page_tables = {name: table | {"rows": len(frame)} for name, (table, frame) in tables.items()}
    subject = names[0] if len(names) == 1 else f"{len(names)} datasets"
    write_page(
        output, "forecast.html.j2", FORECAST_SCRIPTS, packed,
        specs=make_specifications(FORECAST_CHARTS), tables=page_tables, settings=settings,
        title=f"Forecast for {subject}", sections=sections, predictors=PREDICTORS,
        initial={"outcome": "accuracy"},
    )  # fmt: skip


def read_rehearsal(folder: Path, forecast: DatasetForecast) -> RehearsalFile:
    """Return the rehearsal of a dataset by the model of the first choice."""
    path = Path(folder) / forecast.first["model"] / f"{forecast.dataset}.json"
    return read_json(path, RehearsalFile)


def describe_section(
    forecast: DatasetForecast, rehearsal: RehearsalFile, predictor: str | None
) -> dict[str, Any]:
    """Return what the template needs of one dataset, except for its images."""
    rows = select_run(forecast.forecasts, forecast.first)
    notes = [note for cell in rows.note for note in cell.split("; ") if note]
    # What a tokenizer cannot tell apart matters whichever model comes first.
    named = forecast.forecasts[["model", "note"]].itertuples(index=False)
    notes += [
        f"{model}: {note}"
        for model, cell in named if model != forecast.first["model"]
        for note in cell.split("; ") if note.startswith("the captions of")
    ]  # fmt: skip
    return {
        "dataset": forecast.dataset, "run": forecast.run, "first": forecast.first,
        "predictor": predictor, "answers": answer_forecast(forecast),
        "notes": list(dict.fromkeys(notes + rehearsal["notes"])),
        "n_train": int(forecast.forecasts.n_train.max()),
        "models": forecast.rankings.model.nunique(), "methods": forecast.rankings.method.nunique(),
        "measured": bool(forecast.forecasts.measured.any()),
    }  # fmt: skip


def describe_classes(forecast: DatasetForecast, rehearsals: Path, datasets: Path) -> dict[str, Any]:
    """Return the confused classes and the doubtful images of one dataset for the template."""
    model, dataset = forecast.first["model"], forecast.dataset
    images = read_frame(Path(rehearsals) / model / f"{dataset}_images.parquet")
    folder = Path(datasets) / dataset
    classes = read_manifest(folder)["classes"]
    pairs, doubtful = describe_images(images, folder / "train.parquet", classes)
    wrong = int((images.probe != images.label).sum())
    return {"pairs": pairs, "doubtful": doubtful, "wrong": wrong, "n_images": len(images)}


def prepare_drawn_forecasts(forecasts: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of the forecasts that the page draws.

    `zero_shot` becomes the zero-shot model's own outcome: its gain and its changes are 0.
    """
    columns = ["dataset", "model", "method", "outcome", "expected", "low", "high", "measured"]
    zero_shot = forecasts.zero_shot.where(forecasts.outcome == "accuracy", 0.0)
    return forecasts[columns].assign(zero_shot=zero_shot)


def make_section_tables(
    number: int, forecast: DatasetForecast, candidates: pd.DataFrame, rehearsal: RehearsalFile
) -> dict[str, PageTableData]:
    """Return the tables of the section `number` by name; all sections share the candidates."""
    contents: dict[str, tuple[str, pd.DataFrame, ColumnSpecs]] = {
        "runs": ("All models and methods", *arrange_runs(forecast)),
        "candidates": ("Candidates for each forecast, and how far they were off",
                       candidates.assign(chosen=candidates.chosen.map({True: "yes", False: ""})),
                       CANDIDATE_COLUMN_SPECS),
        "more-images": ("Accuracy with more images", forecast.learning, LEARNING_COLUMN_SPECS),
        "classes": ("Accuracy of every class", pd.DataFrame(rehearsal["classes"]),
                    CLASS_COLUMN_SPECS),
    }  # fmt: skip
    tables = {}
    for name, (caption, frame, specs) in contents.items():
        data = name if name == "candidates" else f"{name}-{number}"
        table = make_table(caption, data, drop_empty_columns(specs, frame))
        tables[f"{name}-{number}"] = (table, frame)
    return tables


def arrange_runs(forecast: DatasetForecast) -> tuple[pd.DataFrame, ColumnSpecs]:
    """Return a table with a row per model and method, the best first, and its columns."""
    key = ["model", "method"]
    ranking = ["rank", *key, "behind", "behind_low", "behind_high", "note"]
    frame = forecast.rankings[ranking]
    specs: ColumnSpecs = {"rank": ("rank", "plain"), **RUN_COLUMN_SPECS}
    bases: ColumnSpecs = {}
    for outcome, (heading, kind) in TABLE_OUTCOMES.items():
        rows = forecast.forecasts[forecast.forecasts.outcome == outcome]
        renamed = {"expected": outcome, "low": f"{outcome}.low", "high": f"{outcome}.high",
                   "predictor": f"{outcome}.predictor"}  # fmt: skip
        frame = frame.merge(rows[[*key, *renamed]].rename(columns=renamed), "left", key)
        # Without a value, nothing was predicted from the predictor.
        known = frame[outcome].notna()
        frame[f"{outcome}.predictor"] = frame[f"{outcome}.predictor"].where(known, None)
        specs[outcome] = (heading, kind, f"{outcome}.low", f"{outcome}.high")
        if outcome != GAIN:  # which follows from the accuracy
            bases[f"{outcome}.predictor"] = (f"{heading.split(' (')[0]}: forecast from", "text")
    specs["behind"] = ("behind the first (points)", "points", "behind_low", "behind_high")
    return frame, specs | bases | {"note": ("note", "text")}


def make_learning_rows(forecast: DatasetForecast, rehearsal: RehearsalFile) -> pd.DataFrame:
    """Return the points of the figure of accuracy against the number of images."""
    curve = pd.DataFrame(rehearsal["learning_curve"], columns=["n", "accuracy"])
    rows = select_run(forecast.learning, forecast.first)
    rows = rows[rows.expected.notna()].rename(columns={"expected": "accuracy"})
    points = pd.concat([
        curve.assign(series=PROBE_SERIES, low=float("nan"), high=float("nan")),
        rows[["n", "accuracy", "low", "high"]].assign(series=forecast.run),
    ])  # fmt: skip
    return points.assign(dataset=forecast.dataset)


def find_place_predictor(study: pd.DataFrame, rehearsal: RehearsalFile) -> str | None:
    """Return the predictor that places the dataset among the study's; None if there is none."""
    for name in PLACE_PREDICTORS:
        if name in study and is_known(rehearsal["measures"].get(name)):
            return name
    return None


def make_place_rows(
    forecast: DatasetForecast, study: pd.DataFrame, rehearsal: RehearsalFile, predictor: str | None
) -> pd.DataFrame:
    """Return predictor and accuracy of the study's tasks and of the dataset, for its first choice.

    Without a predictor or a forecast there are no rows.
    """
    columns = ["dataset", "x", "accuracy", "low", "high", "forecast"]
    accuracy = forecast.find_outcome("accuracy")
    if predictor is None or not accuracy:
        return pd.DataFrame(columns=[*columns, "for"])
    tasks = select_run(study, forecast.first)
    tasks = tasks[tasks[predictor].notna() & tasks.accuracy.notna()]
    tasks = tasks[tasks.dataset != forecast.dataset]
    tasks = tasks.assign(x=tasks[predictor], low=float("nan"), high=float("nan"), forecast=False)
    own = {"dataset": forecast.dataset, "x": rehearsal["measures"][predictor],
           "accuracy": accuracy["expected"], "low": accuracy["low"], "high": accuracy["high"],
           "forecast": True}  # fmt: skip
    rows = pd.concat([tasks[columns], pd.DataFrame([own])], ignore_index=True)
    return rows.assign(**{"for": forecast.dataset})
