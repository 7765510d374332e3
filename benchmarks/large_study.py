"""Simulate a study of many models and datasets, from its last evaluation to its report.

Nothing is embedded, trained or evaluated, because a study of 40 models, 40 datasets and 6 methods
would take weeks even with the mini encoders. Its files are made up in the real formats, with
accuracies that follow a made-up IIMM. Snakemake finds them complete, and runs the analysis and the
report for real, through the command that users run. The benchmark measures the dry runs, the
analysis, the report, and how long a browser takes to open it.

    python benchmarks/large_study.py [--models 40] [--datasets 40] [--folder F]
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

from common import ROOT, open_report, write_table
from foretune.core.config import check_config
from foretune.core.files import write_json
from foretune.core.grid import expand_grid
from foretune.core.parquet import write_parquet
from foretune.data.prepare import prepare_dataset
from foretune.data.prepared import read_manifest, read_split
from foretune.evaluation.scores import (
    CLASS_SCHEMA,
    CONFUSION_SCHEMA,
    DRIFT_SCHEMA,
    OUTCOME_SCHEMA,
    write_predictions,
)
from foretune.measures.compute import compute_measures
from foretune.training.trials import EPOCH_SCHEMA

ENCODERS = ("clip", "siglip", "coca", "eva02")
METHODS = yaml.safe_load((ROOT / "studies/paper.yaml").read_text())["methods"]
# The order of the steps: the files of a later step must be newer than those of an earlier one.
STEPS = ("datasets", "embeddings", "measures", "rehearsals", "trials", "evaluations")
PREDICTORS = ("centroid_accuracy", "hidden_probe_accuracy", "hidden_probe_gain", "knn_accuracy",
              "probe_accuracy", "train_zero_shot_accuracy")  # fmt: skip


def make_config(models: int, datasets: int) -> dict:
    """Return a config with all methods of the first paper on so many models and datasets."""
    tasks = yaml.safe_load((ROOT / "config.yaml").read_text())["datasets"]
    sources = [{"parquet": entry["parquet"]} for entry in tasks.values()]
    methods = {name: dict(recipe) | {"epochs": 30} for name, recipe in METHODS.items()}
    for recipe in methods.values():
        recipe.pop("models", None)
    return {
        "title": f"a simulation of {models} models, {datasets} datasets",
        "models": {f"model{i:02}": {"folder": f"resources/mini/{ENCODERS[i % 4]}"}
                   for i in range(models)},
        "datasets": {f"dataset{i:02}": sources[i % len(sources)] for i in range(datasets)},
        "methods": methods,
    }  # fmt: skip


class Simulation:
    """Writes made-up files of a study's jobs."""

    def __init__(self, config: dict, folder: Path):
        self.study, self.folder, self.rng = check_config(config), folder, np.random.default_rng(0)
        self.models, self.datasets = list(self.study["models"]), list(self.study["datasets"])
        shape = len(self.models), len(self.datasets)
        self.iimm = self.rng.uniform(0.3, 0.6, shape)
        self.zero_shot = self.rng.uniform(0.1, 0.7, shape)

    def write_datasets(self) -> None:
        prepared: dict[str, Path] = {}
        for name, entry in self.study["datasets"].items():
            output = self.folder / "results/datasets" / name
            source = entry["parquet"]
            if source in prepared:
                shutil.copytree(prepared[source], output, dirs_exist_ok=True)
                manifest = read_manifest(output) | {"name": name}
                # The analysis takes datasets with the same test digest for one task.
                write_json(manifest | {"test_digest": name}, output / "dataset.json")
            else:
                prepare_dataset(name, {"parquet": self.folder / source}, output, 0)
                prepared[source] = output
        self.manifests = [
            read_manifest(self.folder / "results/datasets" / d) for d in self.datasets
        ]
        for name in self.datasets:
            rows = read_split(self.folder / "results/datasets" / name, "test", ["id", "label"])
            path = self.folder / f"results/predictions/{name}.parquet"
            labels = rows["label"].to_numpy()
            similarities = np.eye(labels.max() + 1)[self.rng.permutation(labels)]
            write_predictions(path, rows["id"], labels, similarities, 1.0, name)

    def write_measures(self) -> None:
        images, texts = self.rng.normal(size=(200, 16)), self.rng.normal(size=(10, 16))
        names = compute_measures(images, texts, np.arange(200) % 10)
        for i, model in enumerate(self.models):
            for j, dataset in enumerate(self.datasets):
                values = {name: float(self.rng.normal()) for name in names}
                values["iimm"] = float(self.iimm[i, j])
                self.write_values("measures", model, dataset, values, (15, 30, 60, 120, 240, 480))
                values = {name: float(self.rng.uniform()) for name in PREDICTORS}
                self.write_values("rehearsals", model, dataset, values, ())

    def write_values(self, folder, model, dataset, values: dict, curve: tuple) -> None:
        """Write measures, or predictors, with their intervals and with curves over `curve`."""
        details = {
            name: {"interval": [value - 0.1, value + 0.1], "variants": {}, "notes": [],
                   "curve": [{"n": n, "mean": value, "deviation": n**-0.5} for n in curve]}
            for name, value in values.items()
        }  # fmt: skip
        content = {"model": model, "dataset": dataset, "weights": f"of {model}", "n": 1000,
                   "measures": values, "details": details, "notes": []}  # fmt: skip
        write_json(content, self.folder / f"results/{folder}/{model}/{dataset}.json")

    def write_runs(self) -> None:
        for method, recipe in self.study["methods"].items():
            trials = expand_grid(recipe)
            for i, model in enumerate(self.models):
                after = self.tuned(i, method)
                for j, dataset in enumerate(self.datasets):
                    self.write_run(model, method, dataset, trials, recipe["epochs"], after[j, j])
                self.write_evaluation(i, method, after)
        for i in range(len(self.models)):
            self.write_evaluation(i, "zero_shot", self.zero_shot[i][None])

    def tuned(self, i: int, method: str) -> np.ndarray:
        """Return accuracies (trained on, tested on) that gain and forget more if IIMM is higher."""
        size = len(self.datasets)
        lost = 0.3 * self.iimm[i][:, None] + self.rng.normal(0, 0.03, (size, size))
        after = np.clip(self.zero_shot[i] - lost, 0, 1)
        gained = (1 - self.zero_shot[i]) * (self.iimm[i] + self.rng.normal(0, 0.05, size))
        np.fill_diagonal(after, np.clip(self.zero_shot[i] + gained, 0, 1))
        return after

    def write_run(self, model, method, dataset, trials, epochs: int, accuracy: float) -> None:
        run = {"model": model, "method": method, "dataset": dataset}
        output = self.folder / f"results/trials/{model}/{method}/{dataset}/0"
        n = len(trials) * epochs
        columns = {key: [value] * n for key, value in run.items()}
        columns |= {
            "learning_rate_peak": [t["learning_rate"] for t in trials for _ in range(epochs)]
        }
        for key in ("trial", "weight_decay", "rank", "reduction"):
            columns[key] = [trial.get(key) for trial in trials for _ in range(epochs)]
        columns["epoch"] = list(range(1, epochs + 1)) * len(trials)
        learned = 1 - np.exp(-np.array(columns["epoch"]) / 3)
        columns["val_accuracy"] = accuracy * (learned - np.abs(self.rng.normal(0, 0.02, n)))
        columns["loss"], columns["learning_rate"] = np.ones(n), columns["learning_rate_peak"]
        columns["images_per_second"], columns["ended"] = np.full(n, 300.0), [None] * n
        table = pa.table([columns[name] for name in EPOCH_SCHEMA.names], schema=EPOCH_SCHEMA)
        write_parquet(table, output / "epochs.parquet", run)
        best = {**run, **trials[0], "epoch": epochs, "val_accuracy": accuracy,
                "trained_weights": f"{output}/trained_weights.safetensors",
                "sha256": "simulated"}  # fmt: skip
        write_json(best, output / "best.json")

    def write_evaluation(self, i: int, method: str, accuracies: np.ndarray) -> None:
        model, zero_shot = self.models[i], method == "zero_shot"
        rows, classes, confusions, moved = [], [], [], []
        for j, trained_on in enumerate([None] if zero_shot else self.datasets):
            for k, dataset in enumerate(self.datasets):
                if method == "linear_probe" and j != k:
                    continue
                accuracy, names = float(accuracies[j, k]), self.manifests[k]["classes"]
                key = {"model": model, "method": method, "trained_on": trained_on,
                       "wise_ft": None if zero_shot else 1.0, "evaluated_on": dataset,
                       "split": "test"}  # fmt: skip
                rows.append({**key, "accuracy": accuracy, "mean_class_accuracy": accuracy,
                             "n": 1000, "chance": 1 / len(names), "ece": 0.1, "nll": 1.0,
                             "test_digest": dataset,
                             "predictions": f"{dataset}.parquet"})  # fmt: skip
                classes += [{**key, "class": name, "n": 100, "accuracy": accuracy}
                            for name in names]  # fmt: skip
                if trained_on in (None, dataset):
                    confusions += [
                        {**{name: key[name] for name in CONFUSION_SCHEMA.names[:4]}, "class": a,
                         "predicted": b, "n": 10, "class_n": 100, "share": 0.1}
                        for a in names[:8] for b in names[:8]
                    ]  # fmt: skip
            if not zero_shot:
                run = {"model": model, "method": method, "dataset": trained_on}
                moved.append(run | dict.fromkeys(DRIFT_SCHEMA.names[3:], 0.1))
        stem = self.folder / f"results/evaluations/{model}/{method}"
        for suffix, table_rows, schema in (
            ("", rows, OUTCOME_SCHEMA),
            ("_classes", classes, CLASS_SCHEMA),
            ("_confusions", confusions, CONFUSION_SCHEMA),
        ):
            table = pa.Table.from_pylist(table_rows, schema)
            write_parquet(table, stem.with_name(f"{method}{suffix}.parquet"), {"kind": "outcomes"})
        if moved and method not in ("linear_probe", "clip_adapter"):
            moved = [row | {"wasserstein_n": 500} for row in moved]
            table = pa.Table.from_pylist(moved, DRIFT_SCHEMA)
            write_parquet(table, stem.with_name(f"{method}_drift.parquet"), {"kind": "drift"})


def run(folder: Path, *arguments: str) -> tuple[str, float, float, float]:
    """Run Snakemake; return what it printed, and its seconds, CPU seconds and MB.

    The last two are Snakemake's own only in a dry run; otherwise they include its jobs.
    """
    command = [sys.executable, "workflow_scripts/run_study.py", "--study", "large.yaml",
               "--profile", "profiles/local", *arguments]  # fmt: skip
    with tempfile.TemporaryFile("w+") as printed:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=printed, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - started
        printed.seek(0)
        text = printed.read()
    assert status == 0, text[-3000:]
    return text, took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def place_files(folder: Path, printed: str) -> int:
    """Make empty files for the outputs that nothing reads, each step's older than the next one's.

    printed: the output of a dry run. Returns the number of its jobs.
    """
    jobs = printed.count("\n    jobid: ")
    now = time.time()
    for names in re.findall(r"^    output: (.*)$", printed, re.M):
        for name in names.split(", "):
            step = name.split("/")[1]
            if step in STEPS:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                age = len(STEPS) - STEPS.index(step) + (path.name != "text.parquet") / 2
                os.utime(path, (now - 60 * age,) * 2)
    return jobs


def read_benchmark(folder: Path, rule: str) -> dict[str, str]:
    """Return the row of the benchmark file that Snakemake wrote for a rule."""
    header, values = (folder / f"logs/benchmarks/{rule}.tsv").read_text().splitlines()[:2]
    return dict(zip(header.split("\t"), values.split("\t"), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=40)
    parser.add_argument("--datasets", type=int, default=40)
    parser.add_argument(
        "--folder", type=Path, help="where to work, and keep the files; default: a temporary folder"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("rules", "workflow_scripts", "studies", "profiles", "envs", "resources"):
            shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
        for name in ("Snakefile", "config.yaml"):
            shutil.copy(ROOT / name, folder)
        for path in folder.rglob("*"):  # sources are older than the results
            os.utime(path, (0, 0))
        config = make_config(args.models, args.datasets)
        (folder / "large.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        os.chdir(folder)
        rows = [{"what": f"{args.models} models, {args.datasets} datasets, {len(METHODS)} methods"}]
        printed, took, cpu, memory = run(folder, "-n")
        simulation = Simulation(config, folder)
        simulation.write_datasets()
        simulation.write_measures()
        simulation.write_runs()
        jobs = place_files(folder, printed)
        rows.append(row("the dry run, without results", took, cpu, memory, f"{jobs:,} jobs"))
        print(rows, flush=True)
        printed, took, cpu, memory = run(folder, "-n")
        remaining = printed.count("\n    jobid: ")
        rows.append(row("the dry run, all but analysis and report complete", took, cpu, memory,
                        f"{remaining} jobs"))  # fmt: skip
        print(rows, flush=True)
        assert remaining < 9, "made-up files are not complete"  # analysis, report, `all`
        run(folder)
        for rule in ("analyze_study", "write_report", "draw_figures"):
            usage = read_benchmark(folder, rule)
            rows.append(row(rule, float(usage["s"]), float(usage["cpu_time"]),
                            float(usage["max_rss"]), ""))  # fmt: skip
        page = folder / "results/report.html"
        rows.append({"what": "report.html", "": f"{page.stat().st_size / 1e6:.1f} MB"})
        openings = open_report(page)
        for name in openings[0]:
            seconds = statistics.median(opening[name] for opening in openings)
            rows.append({"what": f"in Chromium: {name}", "seconds": f"{seconds:.1f}"})
        tables = sum(file.stat().st_size for file in (folder / "results/analysis").iterdir())
        rows.append({"what": "results/analysis", "": f"{tables / 1e6:.0f} MB"})
        os.chdir(ROOT)
    write_table(
        "large_study", "A large study: a simulation", rows,
        "The files of embeddings, training and evaluation are made up; Snakemake, the analysis and "
        "the report are real. The code before, measured once on "
        "the same day with a profiler attached, needed 163 CPU seconds for the first dry run, 123 "
        "(1,450 MB) for the analysis and 603 (3,515 MB) for a report of 56 MB, drawn after 14 s.",
    )  # fmt: skip


def row(what: str, took: float, cpu: float, memory: float, more: str) -> dict:
    """Return a row of the table; `more` goes into the last column, which has no name."""
    return {"what": what, "seconds": f"{took:.0f}", "CPU seconds": f"{cpu:.0f}",
            "MB": f"{memory:.0f}", "": more}  # fmt: skip


if __name__ == "__main__":
    main()
