"""Make synthetic forecasts for tests of the forecast page: its tables, without any model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from foretune.analysis.outcomes import GAIN
from foretune.core.files import write_json
from foretune.data.prepared import read_manifest
from report_study import EVIL, save

MEASURED = ("linear_probe", "clip_adapter")
PROBE = "hidden_probe_accuracy"


@dataclass
class ForecastShape:
    """The size of a synthetic forecast.

    ranked, learning: whether runs can be ranked, and whether there are learning curves; gap: how
    far each run is behind the one before it; spread: half the interval of an accuracy.
    """

    runs: Sequence[tuple[str, str]] = (
        ("tiny-clip", "full"), ("tiny-clip", "lora"), ("tiny-coca", "full"),
        ("tiny-clip", "linear_probe"),
    )  # fmt: skip
    ranked: bool = True
    learning: bool = True
    gap: float = 0.02
    spread: float = 0.07
    added: float = 0.03  # accuracy by doubling the images
    predictors: Sequence[str] = (PROBE, "train_zero_shot_accuracy")
    error: float = 0.041
    change: float = -0.034
    note: str = ""


def make_forecast_rows(dataset: str, n: int, shape: ForecastShape) -> pd.DataFrame:
    """Return rows of the table `forecasts`."""
    rows = []
    for place, (model, method) in enumerate(shape.runs):
        measured, zero_shot = method in MEASURED, 0.41 + 0.02 * place
        accuracy = 0.86 - shape.gap * place
        values = {
            "accuracy": (accuracy, shape.spread), "ood_change": (shape.change, 0.03),
            GAIN: ((accuracy - zero_shot) / (1 - zero_shot), 0.12),
        }  # fmt: skip
        for outcome, (expected, half) in values.items():
            unknown = outcome == "ood_change" and measured
            row = {
                "dataset": dataset, "model": model, "method": method, "outcome": outcome,
                "n_train": n, "zero_shot": zero_shot, "expected": expected,
                "low": expected - half, "high": expected + half,
                "predictor": f"line on train_zero_shot_accuracy and {PROBE}", "measured": measured,
                "n": 12, "loo_error": shape.error, "loo_mean_error": 0.132,
                "loo_iimm_error": 0.14, "note": shape.note,
            }  # fmt: skip
            if measured:
                row |= {"predictor": "measured", "loo_error": None, "loo_mean_error": None}
            if unknown:
                row |= {"expected": None, "low": None, "high": None, "note": "no head for others"}
            rows.append(row)
    numbers = ["expected", "low", "high", "loo_error", "loo_mean_error"]
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))


def make_rankings(forecasts: pd.DataFrame, shape: ForecastShape) -> pd.DataFrame:
    """Return rows of the table `rankings` of one dataset."""
    wide = forecasts.pivot(index=["dataset", "model", "method"], columns="outcome",
                           values="expected").reset_index()  # fmt: skip
    score = 0.5 * wide.accuracy + 0.5 * wide.ood_change
    if not shape.ranked:
        score[:] = np.nan
    behind = score.max() - score
    wide = wide.assign(
        weight=0.5, score=score, rank=score.rank(ascending=False, method="min").astype("Int64"),
        behind=behind, behind_low=behind - 0.015, behind_high=behind + 0.015,
        note=np.where(score.isna(), "not ranked, because a part of its score is not known", ""),
    )  # fmt: skip
    columns = ["dataset", "rank", "model", "method", "weight", "score", "accuracy", "ood_change",
               "behind", "behind_low", "behind_high", "note"]  # fmt: skip
    return wide[columns].sort_values(["rank", "model", "method"], ignore_index=True)


def make_learning(forecasts: pd.DataFrame, n: int, shape: ForecastShape) -> pd.DataFrame:
    """Return rows of the table `learning` of one dataset."""
    accuracies = forecasts[forecasts.outcome == "accuracy"]
    rows = [
        {"dataset": row.dataset, "model": row.model, "method": row.method, "times": times,
         "n": times * n, "expected": row.expected + shape.added * np.log2(times) * 0.7 ** power,
         "low": row.expected - shape.spread, "high": min(1.0, row.expected + shape.spread)}
        for row in accuracies.itertuples() for power, times in enumerate((1, 2, 4, 8))
    ]  # fmt: skip
    columns = ["dataset", "model", "method", "times", "n", "expected", "low", "high"]
    return pd.DataFrame(rows if shape.learning else [], columns=columns)


def make_candidates() -> pd.DataFrame:
    """Return the table `candidates`."""
    errors = {"mean of the study": 0.132, "line on iimm": 0.14, f"{PROBE} itself": 0.041}
    return pd.DataFrame([
        {"method": method, "outcome": outcome, "candidate": name, "loo_error": error, "n": 12,
         "chosen": error < 0.1}
        for method in ("full", "lora") for outcome in ("accuracy", "ood_change")
        for name, error in errors.items()
    ])  # fmt: skip


def make_rehearsal(folder: Path, model: str, dataset: Path, rng, wrong: float = 0.2) -> None:
    """Write the rehearsal of a prepared dataset, in which the share `wrong` is misclassified."""
    manifest = read_manifest(dataset)
    rows = pq.read_table(dataset / "train.parquet", columns=["id", "label"]).to_pandas()
    labels, classes = rows.label.to_numpy(), len(manifest["classes"])
    is_wrong = rng.uniform(size=len(rows)) < wrong
    probe = np.where(is_wrong, (labels + rng.choice([1, 1, 1, 2], len(rows))) % classes, labels)
    margin = np.where(probe != labels, -1, 1) * rng.uniform(0.05, 1, len(rows))
    images = pd.DataFrame({"id": rows.id, "label": labels, "zero_shot": labels, "probe": probe,
                           "margin": margin})  # fmt: skip
    name = manifest["name"]
    save(images, folder / model / f"{name}_images.parquet", kind="rehearsal")
    right = probe == labels
    facts = {
        "model": model, "dataset": name, "n": len(rows), "notes": [], "details": {},
        "grouped": False, "measures": {PROBE: float(right.mean()), "train_zero_shot_accuracy": 0.4},
        "learning_curve": [
            {"n": max(2, int(share * len(rows))), "accuracy": float(right.mean()) * share**0.15}
            for share in (0.1, 0.2, 0.4, 0.8)
        ],
        "classes": [{"class": c, "n": int((labels == i).sum()), "zero_shot": 0.4,
                     "probe": float(right[labels == i].mean()) if (labels == i).any() else None}
                    for i, c in enumerate(manifest["classes"])],
    }  # fmt: skip
    write_json(facts, folder / model / f"{name}.json")


def make_study_tasks(shape: ForecastShape, rng, datasets: int = 12) -> pd.DataFrame:
    """Return the columns of a study's table `tasks` that the page needs."""
    rows = []
    for model, method in shape.runs:
        for number in range(datasets):
            probe = rng.uniform(0.4, 0.98)
            predictors = {PROBE: probe, "train_zero_shot_accuracy": 0.6 * probe}
            rows.append(
                {"model": model, "method": method, "dataset": f"task-{number}",
                 "accuracy": min(0.995, probe + rng.uniform(-0.02, 0.12))}
                | {name: predictors[name] for name in shape.predictors}
            )  # fmt: skip
    return pd.DataFrame(rows)


def write_forecast_tables(folder: Path, images: dict[str, int], shape: ForecastShape) -> None:
    """Write the tables of forecasts of datasets with the given numbers of training images."""
    forecasts = [make_forecast_rows(name, n, shape) for name, n in images.items()]
    tables = {
        "forecasts": forecasts,
        "rankings": [make_rankings(rows, shape) for rows in forecasts],
        "learning": [make_learning(rows, n, shape)
                     for rows, n in zip(forecasts, images.values(), strict=True)],
        "candidates": [make_candidates()],
    }  # fmt: skip
    for name, frames in tables.items():
        save(pd.concat(frames, ignore_index=True), folder / f"{name}.parquet")


def add_forecast(folder: Path, study: dict, **fields) -> None:
    """Add forecasts of two datasets to the arguments `study` of `build_report`."""
    images = {"birds": 40, EVIL: 40}
    write_forecast_tables(folder / "forecast", images, ForecastShape(**fields))
    study["forecast"] = folder / "forecast"


def make_forecast(folder: Path, datasets: Sequence[Path], wrong: float = 0.2, **fields) -> dict:
    """Write a forecast of prepared datasets, and return the arguments of `build_forecast_page`.

    datasets: folders in one common folder; fields: of ForecastShape.
    """
    shape, rng = ForecastShape(**fields), np.random.default_rng(0)
    for dataset in datasets:
        for model in dict.fromkeys(model for model, _ in shape.runs):
            make_rehearsal(folder / "rehearsals", model, dataset, rng, wrong)
    images = {path.name: read_manifest(path)["splits"]["train"]["rows"] for path in datasets}
    write_forecast_tables(folder / "forecast", images, shape)
    save(make_study_tasks(shape, rng), folder / "tasks.parquet")
    return {"forecast": folder / "forecast", "rehearsals": folder / "rehearsals",
            "datasets": datasets[0].parent, "tasks": folder / "tasks.parquet",
            "output": folder / "forecast.html"}  # fmt: skip
