"""Make synthetic studies for tests of the report: tables and images, without any model."""

import base64
import gzip
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from foretune.analysis.base_to_new import tabulate_base_to_new
from foretune.analysis.front import compute_front
from foretune.analysis.outcomes import GAIN
from foretune.analysis.paper_tables import OTHER
from foretune.analysis.seeds import tabulate_seeds
from foretune.analysis.study_tables import WISE_FT, write_statistics
from foretune.core.files import write_json
from foretune.core.parquet import write_parquet
from foretune.evaluation.confusions import MAX_CONFUSED_CLASSES
from foretune.evaluation.scores import CONFUSION_SCHEMA, DRIFT_SCHEMA
from foretune.report.build import build_report

EVIL = "<script>alert(1)</script>"
CLASSES = ["red", EVIL, "big & blue"]
MEASURES = ["iimm", "modality_gap"]
NAMES = ["aurora", "beetles", "coins", "dunes", "engines", "ferns", "glyphs", "harbours", "ice"]


def save(frame: pd.DataFrame, path: Path, **metadata) -> None:
    """Write a table as Parquet with the given metadata."""
    write_parquet(pa.Table.from_pandas(frame, preserve_index=False), path, metadata)


def make_png(colour, side: int = 24) -> bytes:
    """Return an encoded square image of one RGB colour."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), tuple(int(c) for c in colour)).save(file, "PNG")
    return file.getvalue()


@dataclass
class StudyShape:
    """The size of a synthetic study.

    analyze writes the tables of statistics, as `write_statistics` does; image encodes an image of
    an RGB colour; trials and epochs are the numbers per run and per trial.
    """

    names: Sequence[str] = tuple(NAMES[:3])
    models: Sequence[str] = ("tiny-clip",)
    methods: Sequence[str] = ("full", "linear_probe")
    measures: Sequence[str] = tuple(MEASURES)
    classes: Sequence[str] = tuple(CLASSES)
    seed: int = 0
    analyze: Callable = write_statistics
    image: Callable = make_png
    trials: int = 4
    epochs: int = 6


def make_dataset(
    folder: Path, name: str, rng: np.random.Generator, classes: Sequence[str], image=make_png
) -> Path:
    """Write a prepared dataset and return the path of its manifest."""
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
        "name": name, "split": "test", "classes": list(classes),
        "caption": "a photo of a {}", "licence": "CC0-1.0",
        "source": f"https://example.org/{name}", "digest": f"digest-of-{name}", "splits": splits,
    }  # fmt: skip
    write_json(description, folder / "dataset.json")
    return folder / "dataset.json"


def make_epochs(
    folder: Path, run: dict, shape: StudyShape, zero_shot: dict[str, float], rng
) -> Path:
    """Write the epochs of all trials of a model and method, and return the path of the file.

    zero_shot: each dataset's zero-shot accuracy, from which the validation accuracy rises.
    """
    decays = 10.0 ** -np.arange(5, 3, -4 / shape.trials)
    grid = [(rate, decay) for rate in (1e-4, 1e-3) for decay in decays][: shape.trials]
    rows = [
        run | {"dataset": name, "trial": trial, "learning_rate_peak": rate, "weight_decay": decay,
               "rank": None, "reduction": None, "epoch": epoch, "loss": 1 / epoch,
               "val_accuracy": zero_shot[name]
               + (0.95 - zero_shot[name]) * (1 - np.exp(-epoch * rate * 900))
               - rng.uniform(0, 0.03)}
        for name in shape.names
        for trial, (rate, decay) in enumerate(grid)
        for epoch in range(1, shape.epochs + 1)
    ]  # fmt: skip
    slug = re.sub(r"[^a-z0-9]", "_", f"{run['model']}-{run['method']}")
    save(pd.DataFrame(rows), folder / f"{slug}-epochs.parquet")
    return folder / f"{slug}-epochs.parquet"


def make_task_tables(shape: StudyShape, rng) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables `outcomes` and `tasks`.

    Gain rises and ood_change falls with IIMM; a linear probe has no ood_change.
    """
    outcomes, tasks = [], []
    for model in shape.models:
        zero_shot = {name: rng.uniform(0.3, 0.8) for name in shape.names}
        values = {name: rng.uniform(0.2, 0.5, len(shape.measures)) for name in shape.names}
        rows = [("zero_shot", None, name, zero_shot[name]) for name in shape.names]
        for method in shape.methods:
            for name in shape.names:
                others = [other for other in shape.names
                          if other != name and method != "linear_probe"]  # fmt: skip
                measured = dict(zip(shape.measures, values[name], strict=True))
                measured["modality_gap"] = 0.5
                gain = min(0.95, 2 * measured["iimm"] + rng.normal(0, 0.05))
                accuracy = zero_shot[name] + gain * (1 - zero_shot[name])
                change = -measured["iimm"] / 3 + rng.normal(0, 0.02)
                rows.append((method, name, name, accuracy))
                rows += [(method, name, other, zero_shot[other] + change) for other in others]
                tasks.append({
                    "model": model, "method": method, "dataset": name,
                    "zero_shot_accuracy": zero_shot[name], "accuracy": accuracy, "chance": 1 / 3,
                    GAIN: gain, "ood_change": change if others else None,
                    "shifted_change": None, "val_accuracy": accuracy, "trial": 2,
                    "learning_rate": 1e-3, "weight_decay": 1e-4, "best_epoch": 5, **measured,
                })  # fmt: skip
        outcomes += [
            {"model": model, "method": method, "trained_on": trained_on, "evaluated_on": name,
             "split": "test", "accuracy": accuracy, "n": 12, "chance": 1 / 3,
             "wise_ft": 1.0 if trained_on else None, "zero_shot_accuracy": zero_shot[name]}
            for method, trained_on, name, accuracy in rows
        ]  # fmt: skip
    numbers = [GAIN, "accuracy", "ood_change", "shifted_change"]
    return pd.DataFrame(outcomes), pd.DataFrame(tasks).astype(dict.fromkeys(numbers, float))


def make_measure_table(tasks: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Return the table `measures` with intervals, and with one dataset that has no model."""
    measured = tasks.drop_duplicates(["model", "dataset"])[["model", "dataset", *measures]]
    ends = {f"{m}.{end}": measured[m] + by for m in measures
            for end, by in (("low", -0.01), ("high", 0.01)) if m != "modality_gap"}  # fmt: skip
    elsewhere = {"model": None, "dataset": "elsewhere", "n_train": 100, "iimm": 0.25,
                 "notes": "emms: noise; ncti: one class"}  # fmt: skip
    measured = measured.assign(n_train=24, notes="", **ends)
    return pd.concat([measured, pd.DataFrame([elsewhere])], ignore_index=True)


def make_tables(shape: StudyShape, rng) -> dict[str, pd.DataFrame]:
    """Return the tables of a study that `analyze` does not write, by name."""
    outcomes, tasks = make_task_tables(shape, rng)
    confusions = [
        (model, method, name, "test", label, predicted, 3 if label == predicted else 1, 4,
         0.75 if label == predicted else 0.25)
        for model in shape.models for method in ("zero_shot", *shape.methods)
        for name in shape.names
        for i, label in enumerate(shape.classes[:MAX_CONFUSED_CLASSES])
        for predicted in dict.fromkeys([label, shape.classes[i - 1]])
    ]  # fmt: skip
    curves = [
        {"model": model, "dataset": name, "measure": measure, "n": n, "mean": 0.3,
         "deviation": 1 / n, "relative": 2 / n + (0.01 * place if place < 3 else 0.0)}
        for model in shape.models for place, name in enumerate(shape.names)
        for measure in shape.measures if measure != "modality_gap" for n in (12, 24, 48)
    ]  # fmt: skip
    drift = [
        dict.fromkeys(DRIFT_SCHEMA.names, 0.1) | {"model": model, "method": method, "dataset": name}
        for model in shape.models for method in shape.methods if method != "linear_probe"
        for name in shape.names
    ]  # fmt: skip
    halves = tasks[tasks.method == "full"]
    halves = halves[["model", "method", "dataset", "accuracy", *WISE_FT]].assign(wise_ft=0.5)
    halves[list(WISE_FT)] /= 2
    few_shot = [
        tasks[tasks.method == "full"].assign(method=f"full_{shots}shot_seed{seed}", wise_ft=1.0)
        for shots in (1, 4) for seed in (0, 1)
    ]  # fmt: skip
    for number, runs in enumerate(few_shot):
        runs["accuracy"] = 0.5 + 0.05 * number
    columns = ["model", "dataset", "measure", "n", "mean", "deviation", "relative"]
    return {
        "outcomes": outcomes,
        "tasks": tasks,
        "wise_ft": halves,
        "front": compute_front(pd.concat([tasks.assign(wise_ft=1.0), halves]), shape.seed),
        "seeds": tabulate_seeds(pd.concat([tasks.assign(wise_ft=1.0), *few_shot])),
        "base_to_new": tabulate_base_to_new(outcomes),
        "measures": make_measure_table(tasks, shape.measures),
        "curves": pd.DataFrame(curves, columns=columns),
        "drift": pd.DataFrame(drift, columns=DRIFT_SCHEMA.names),
        "confusions": pd.DataFrame(confusions, columns=CONFUSION_SCHEMA.names),
    }


def make_study(folder: Path, **fields) -> dict:
    """Write a study into the folder and return its part of the arguments of `build_report`.

    fields: of StudyShape.
    """
    shape, analysis = StudyShape(**fields), folder / "analysis"
    rng = np.random.default_rng(shape.seed)
    tables = make_tables(shape, rng)
    weights = dict.fromkeys(shape.models, "weights-digest")
    for name, frame in tables.items():
        missing = [
            {"model": EVIL, "method": "full", "dataset": "a", "note": "every trial diverged"}
        ]
        metadata = {"measures": list(shape.measures), "weights": weights, "missing": missing}
        save(frame, analysis / f"{name}.parquet",
             **(metadata if name in ("tasks", "measures") else {}))  # fmt: skip
    tasks, measures = tables["tasks"], list(shape.measures)
    studies = dict.fromkeys([*shape.models, "all"], OTHER)
    shape.analyze(tasks, tables["measures"], measures, [], 0, studies, analysis)
    zero_shot = tasks.set_index(["model", "dataset"]).zero_shot_accuracy.to_dict()
    epochs = [
        make_epochs(folder, {"model": model, "method": method}, shape,
                    {name: zero_shot[model, name] for name in shape.names}, rng)
        for model in shape.models for method in shape.methods
    ]  # fmt: skip
    facts = {
        "created": "2025-01-01T00:00:00Z", "git_commit": None,
        "versions": {"torch": "2.9.0"}, "config": {"seed": 1, "note": EVIL},
        "datasets": {name: f"digest-of-{name}" for name in shape.names},
        "models": weights,
    }  # fmt: skip
    write_json(facts, folder / "provenance.json")
    return {
        "analysis": analysis, "epochs": epochs, "provenance": folder / "provenance.json",
        "datasets": [make_dataset(folder, name, rng, shape.classes, shape.image)
                     for name in shape.names],
    }  # fmt: skip


def add_shifted_test(folder: Path, study: dict) -> None:
    """Add a shifted test `sketch` to the study's first dataset, on which every run loses."""
    name, analysis = NAMES[0], study["analysis"]
    outcomes = pd.read_parquet(analysis / "outcomes.parquet")
    sketches = outcomes[outcomes.evaluated_on == name].assign(
        split="sketch", accuracy=0.125, zero_shot_accuracy=0.25
    )
    save(pd.concat([outcomes, sketches], ignore_index=True), analysis / "outcomes.parquet")
    tasks = pd.read_parquet(analysis / "tasks.parquet")
    tasks["shifted_change"] = np.where(tasks.dataset == name, -0.125, np.nan)
    save(tasks, analysis / "tasks.parquet", measures=MEASURES)
    measured = pd.read_parquet(analysis / "measures.parquet")
    studies = dict.fromkeys([*tasks.model, "all"], OTHER)
    write_statistics(tasks, measured, MEASURES, [], 0, studies, analysis)
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


def build(folder: Path, **fields) -> Path:
    """Build the report of a study with the given fields of StudyShape, and return its path."""
    study = make_study(folder, **fields)
    build_report(**study, output=folder / "report.html", title="A <study>")
    return folder / "report.html"


def without_vega(path: Path) -> str:
    """Return the page without its largest script, the bundled Vega."""
    page = path.read_text()
    assert page.count("window.vegaEmbed=") == 1
    return page.replace(max(re.findall(r"<script>(.*?)</script>", page, re.S), key=len), "")


def embedded(markup: str, name: str):
    """Return the JSON that a page embeds under an id."""
    kind, text = re.search(
        rf'<script type="(.*?)" id="{name}">(.*?)</script>', markup, re.S
    ).groups()
    return json.loads(gzip.decompress(base64.b64decode(text)) if "gzip" in kind else text)


def unpack(data: dict) -> pd.DataFrame:
    """Return a packed table of the page as a frame."""
    columns = {
        name: pd.Series(
            [values["words"][code] if code >= 0 else None for code in values["codes"]], dtype=object
        )
        if isinstance(values, dict)
        else values
        for name, values in data["columns"].items()
    }
    return pd.DataFrame(columns)
