"""Synthetic studies for the report: tables and images without a model."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from foretune.analysis.outcomes import GAIN
from foretune.analysis.paper_tables import OTHER
from foretune.analysis.study_tables import WISE_FT, write_statistics
from foretune.core.files import write_json
from foretune.core.parquet import write_parquet
from foretune.evaluation.confusions import MAX_CONFUSED_CLASSES as MOST
from foretune.evaluation.scores import CONFUSION_SCHEMA, DRIFT_SCHEMA
from foretune.forecast.forecast import forecast_datasets
from foretune.report.build import build_report

EVIL = "<script>alert(1)</script>"
CLASSES = ["red", EVIL, "big & blue"]
MEASURES = ["iimm", "modality_gap"]
NAMES = ["aurora", "beetles", "coins", "dunes", "engines", "ferns", "glyphs", "harbours", "ice"]


def save(frame: pd.DataFrame, path: Path, **metadata) -> None:
    write_parquet(pa.Table.from_pandas(frame, preserve_index=False), path, metadata)


def png(colour, side: int = 24) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), tuple(int(c) for c in colour)).save(file, "PNG")
    return file.getvalue()


def make_dataset(folder: Path, name: str, rng, classes: list[str], image=png) -> Path:
    """A prepared dataset; image: what makes an encoded image of a colour."""
    folder = folder / "datasets" / name
    splits = {}
    for split, rows in [("train", 24), ("val", 6), ("test", 12)]:
        labels = np.arange(rows) % len(classes)
        images = [image(rng.integers(0, 256, 3)) for _ in labels]
        frame = pd.DataFrame(
            {"image": images, "label": labels, "id": [str(i) for i in range(rows)]}
        )
        table = pa.Table.from_pandas(frame)
        write_parquet(table, folder / f"{split}.parquet", {}, row_group_size=5)
        splits[split] = {"file": f"{split}.parquet", "rows": rows}
    description = {
        "name": name, "split": "test", "classes": classes,
        "caption": "a photo of a {}", "licence": "CC0-1.0",
        "source": f"https://example.org/{name}", "digest": f"digest-of-{name}", "splits": splits,
    }  # fmt: skip
    write_json(description, folder / "dataset.json")
    return folder / "dataset.json"


def make_epochs(folder: Path, run: dict, names, zero, rng, trials=4, epochs=6) -> Path:
    rows = [
        run | {"dataset": name, "trial": trial, "learning_rate_peak": rate, "weight_decay": decay,
               "rank": None, "reduction": None, "epoch": epoch, "loss": 1 / epoch,
               "val_accuracy": zero[name] + (0.95 - zero[name]) * (1 - np.exp(-epoch * rate * 900))
               - rng.uniform(0, 0.03)}
        for name in names
        for trial, (rate, decay) in enumerate(
            [(r, d) for r in (1e-4, 1e-3) for d in 10.0 ** -np.arange(5, 3, -4 / trials)][:trials])
        for epoch in range(1, epochs + 1)
    ]  # fmt: skip
    slug = re.sub(r"[^a-z0-9]", "_", f"{run['model']}-{run['method']}")
    save(pd.DataFrame(rows), folder / f"{slug}-epochs.parquet")
    return folder / f"{slug}-epochs.parquet"


def make_tables(names, models, methods, measures, classes, rng) -> dict[str, pd.DataFrame]:
    """What was found: gain rises and ood_change falls with IIMM; a probe has none."""
    outcomes, tasks, confused = [], [], []
    for model in models:
        zero = {name: rng.uniform(0.3, 0.8) for name in names}
        values = {name: rng.uniform(0.2, 0.5, len(measures)) for name in names}
        rows = [("zero_shot", None, other, zero[other]) for other in names]
        for method in methods:
            probe = method == "linear_probe"
            for name in names:
                found = dict(zip(measures, values[name], strict=True)) | {"modality_gap": 0.5}
                gain = min(0.95, 2 * found["iimm"] + rng.normal(0, 0.05))
                accuracy = zero[name] + gain * (1 - zero[name])
                change = -found["iimm"] / 3 + rng.normal(0, 0.02)
                rows.append((method, name, name, accuracy))
                if not probe:
                    rows += [(method, name, o, zero[o] + change) for o in names if o != name]
                tasks.append({
                    "model": model, "method": method, "dataset": name,
                    "zero_shot_accuracy": zero[name], "accuracy": accuracy, "chance": 1 / 3,
                    GAIN: gain, "ood_change": None if probe or len(names) == 1 else change,
                    "shifted_change": None, "val_accuracy": accuracy, "trial": 2,
                    "learning_rate": 1e-3, "weight_decay": 1e-4, "best_epoch": 5, **found,
                })  # fmt: skip
        outcomes += [
            {"model": model, "method": method, "trained_on": on, "evaluated_on": other,
             "split": "test", "accuracy": accuracy, "n": 12, "chance": 1 / 3,
             "wise_ft": 1.0 if on else None, "zero_shot_accuracy": zero[other]}
            for method, on, other, accuracy in rows
        ]  # fmt: skip
        confused += [
            (model, method, name, "test", one, other, 3 if one == other else 1, 4,
             0.75 if one == other else 0.25)
            for method in ("zero_shot", *methods) for name in names
            for i, one in enumerate(classes[:MOST]) for other in {one, classes[i - 1]}
        ]  # fmt: skip
    numbers = [GAIN, "accuracy", "ood_change", "shifted_change"]
    tasks = pd.DataFrame(tasks).astype(dict.fromkeys(numbers, float))
    measured = tasks.drop_duplicates(["model", "dataset"])[["model", "dataset", *measures]]
    ends = {f"{m}.{end}": measured[m] + by for m in measures
            for end, by in (("low", -0.01), ("high", 0.01)) if m != "modality_gap"}  # fmt: skip
    elsewhere = {"model": None, "dataset": "elsewhere", "n_train": 100, "iimm": 0.25,
                 "notes": "emms: noise; ncti: one class"}  # fmt: skip
    measured = measured.assign(n_train=24, notes="", **ends)
    halves = tasks[tasks.method == "full"]
    halves = halves[["model", "method", "dataset", "accuracy", *WISE_FT]].assign(wise_ft=0.5)
    halves[list(WISE_FT)] /= 2
    return {
        "outcomes": pd.DataFrame(outcomes), "tasks": tasks, "wise_ft": halves,
        "measures": pd.concat([measured, pd.DataFrame([elsewhere])], ignore_index=True),
        "curves": pd.DataFrame(
            [{"model": model, "dataset": name, "measure": measure, "n": n, "mean": 0.3,
              "deviation": 1 / n, "relative": 2 / n + (0.01 * place if place < 3 else 0.0)}
             for model in models for place, name in enumerate(names)
             for measure in measures if measure != "modality_gap" for n in (12, 24, 48)],
            columns=["model", "dataset", "measure", "n", "mean", "deviation", "relative"]),
        "drift": pd.DataFrame(
            [dict.fromkeys(DRIFT_SCHEMA.names, 0.1)
             | {"model": model, "method": method, "dataset": name}
             for model in models for method in methods if method != "linear_probe"
             for name in names], columns=DRIFT_SCHEMA.names),
        "confusions": pd.DataFrame(confused, columns=CONFUSION_SCHEMA.names),
    }  # fmt: skip


def make_study(
    folder: Path, names=NAMES[:3], models=("tiny-clip",), methods=("full", "linear_probe"),
    measures=MEASURES, classes=CLASSES, seed=0, analyze=write_statistics, image=png, **training,
) -> dict:  # fmt: skip
    """Write a study into the folder; what build_report wants of it.

    analyze: what writes the tables of statistics, as foretune.analyze.write_statistics does.
    """
    rng, analysis = np.random.default_rng(seed), folder / "analysis"
    tables = make_tables(names, models, methods, measures, classes, rng)
    weights = dict.fromkeys(models, "weights-digest")
    facts = {"measures": list(measures), "weights": weights}
    for name, frame in tables.items():
        known = facts if name in ("tasks", "measures") else {}
        save(frame, analysis / f"{name}.parquet", **known)
    studies = dict.fromkeys([*models, "all"], OTHER)
    analyze(tables["tasks"], tables["measures"], list(measures), 0, studies, analysis)
    zero = tables["tasks"].set_index(["model", "dataset"]).zero_shot_accuracy.to_dict()
    epochs = [
        make_epochs(folder, {"model": model, "method": method}, names,
                    {name: zero[model, name] for name in names}, rng, **training)
        for model in models for method in methods
    ]  # fmt: skip
    facts = {
        "created": "2025-01-01T00:00:00Z", "git_commit": None,
        "versions": {"torch": "2.9.0"}, "config": {"seed": 1, "note": EVIL},
        "datasets": {name: f"digest-of-{name}" for name in names},
        "models": weights,
    }  # fmt: skip
    write_json(facts, folder / "provenance.json")
    return {
        "analysis": analysis, "epochs": epochs, "provenance": folder / "provenance.json",
        "datasets": [make_dataset(folder, name, rng, classes, image) for name in names],
    }  # fmt: skip


def add_shifted_test(folder: Path, study: dict) -> None:
    """Give the study's first dataset a shifted test `sketch`, on which every run loses."""
    name, analysis = NAMES[0], study["analysis"]
    outcomes = pd.read_parquet(analysis / "outcomes.parquet")
    on_it = outcomes[outcomes.evaluated_on == name].assign(
        split="sketch", accuracy=0.125, zero_shot_accuracy=0.25
    )
    save(pd.concat([outcomes, on_it], ignore_index=True), analysis / "outcomes.parquet")
    tasks = pd.read_parquet(analysis / "tasks.parquet")
    tasks["shifted_change"] = np.where(tasks.dataset == name, -0.125, np.nan)
    save(tasks, analysis / "tasks.parquet", measures=MEASURES)
    measured = pd.read_parquet(analysis / "measures.parquet")
    studies = dict.fromkeys([*tasks.model, "all"], OTHER)
    write_statistics(tasks, measured, MEASURES, 0, studies, analysis)
    shifted = make_dataset(folder / "shifted", name, np.random.default_rng(1), ["red", "blue"])
    description = json.loads(shifted.read_text()) | {"split": "sketch", "licence": "of the source"}
    del description["splits"]["train"], description["splits"]["val"]
    write_json(description, shifted)
    study["datasets"].append(shifted)
    facts = json.loads(study["provenance"].read_text())
    facts["config"]["datasets"] = {
        name: {"caption": "a thing, {}", "licence": "of its dataset",
               "shifted": {"sketch": {"licence": "of the sketches"}}}
    }  # fmt: skip
    write_json(facts, study["provenance"])


def add_forecast(folder: Path, study: dict, iimm=(("birds", 0.35), (EVIL, 0.9))) -> None:
    """Forecast datasets of these IIMM by the study's first model."""
    model = pd.read_parquet(study["analysis"] / "tasks.parquet").model.iloc[0]
    paths = []
    for i, (name, value) in enumerate(iimm):
        paths.append(folder / f"measured-{i}.json")
        measured = {"model": model, "weights": "weights-digest", "dataset": name, "n": 40}
        write_json(measured | {"measures": {"iimm": value}}, paths[-1])
    made = forecast_datasets(study["analysis"], paths, weight=0.5)
    for name, frame in zip(("forecasts", "rankings"), made, strict=True):
        save(frame, folder / "forecast" / f"{name}.parquet")
    study["forecast"] = folder / "forecast"


def build(folder: Path, **changes) -> Path:
    study = make_study(folder, **changes)
    build_report(**study, output=folder / "report.html", title="A <study>")
    return folder / "report.html"


def without_vega(path: Path) -> str:
    """The page without the bundled Vega, which is not ours to check."""
    page = path.read_text()
    assert page.count("window.vegaEmbed=") == 1
    return page.replace(max(re.findall(r"<script>(.*?)</script>", page, re.S), key=len), "")


def embedded(markup: str, name: str):
    """The JSON that stands in a page under an id."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', markup, re.S)
    return json.loads(found[1])


def unpack(data: dict) -> pd.DataFrame:
    """A packed table of the page as a frame."""
    columns = {
        name: pd.Series(
            [values["words"][code] if code >= 0 else None for code in values["codes"]], dtype=object
        )
        if isinstance(values, dict)
        else values
        for name, values in data["columns"].items()
    }
    return pd.DataFrame(columns)
