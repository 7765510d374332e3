"""The readers of embeddings, results, trainings and studies that tests/fuzz.py feeds."""

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

import fuzz_values
import public_files
from checkout import ROOT
from foretune.core.config import check_config
from foretune.core.content_digests import ContentDigests
from foretune.core.grid import expand_grid
from foretune.core.parquet import write_parquet
from foretune.core.study_file import read_study
from foretune.data.prepare import prepare_dataset
from foretune.data.prepared import read_manifest, read_split
from foretune.encoders.cache import read_task_embeddings, write_embeddings
from foretune.encoders.streams import FileSource
from foretune.encoders.weights_file import load_weights
from foretune.evaluation.scores import read_selections
from foretune.measures.compute import MeasureOptions, measure_task
from foretune.report.thumbnails import describe_dataset
from foretune.training import finetune
from foretune.training.finetune import FineTuningJob
from foretune.training.methods import (
    TrainableModel,
    apply_trained_weights,
    describe_trained_weights,
    make_trainable,
)
from foretune.training.trials import JobSpec, get_trial_columns, select_trial
from fuzz_data import DATA_READERS, MODEL, SMALL, Reader, Seeds, get_seeds

WEIGHTS = {name: tensor.clone() for name, tensor in MODEL.state_dict().items()}


def make_npy(folder: Path) -> Seeds:
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    images = rng.normal(size=(30, 4)).astype(np.float32)
    for name, array in (("images", images), ("texts", images[:3]), ("labels", labels)):
        np.save(folder / f"{name}.npy", array)
    columns = {"label": labels, "embedding": list(images)}
    write_parquet(pa.table(columns), folder / "images.parquet", {}, 16)
    return get_seeds(folder, "*")


def read_npy(folder: Path) -> None:
    options = MeasureOptions(bootstrap=0)
    labels = folder / "labels.npy"
    for images in (folder / "images.npy", folder / "images.parquet"):
        source = FileSource(
            images, folder / "texts.npy", labels if images.suffix == ".npy" else None
        )
        measured = measure_task(source, 0, options)
        json.dumps(measured)
        assert measured["measures"]


def make_results(folder: Path) -> Seeds:
    for number, content in enumerate(SMALL):
        public_files.put(folder / f"source/images/{'ab'[number % 2]}/{number}.png", content)
    manifest = prepare_dataset("it", {"folder": str(folder / "source/images")}, folder / "it", 0)
    shutil.rmtree(folder / "source")
    digest = {"dataset": manifest["digest"], "weights": "w"}
    rows = manifest["splits"]["train"]["rows"]
    for name, n in (("train", rows), ("text", 2)):
        vectors = np.random.default_rng(0).normal(size=(n, 4))
        write_embeddings(
            folder / f"vectors/{name}.parquet", vectors, {"label": np.arange(n)}, digest
        )
    make_job(folder / "job").train()
    ContentDigests(folder / "digests.json").digest(folder / "it/notes.json")
    return get_seeds(folder, "it/*", "vectors/*", "job/best.json", "digests.json")


def read_results(folder: Path) -> None:
    digest = read_manifest(folder / "it")["digest"]
    describe_dataset(folder / "it/dataset.json")
    read_split(folder / "it", "train")
    read_task_embeddings(folder / "vectors", "train", digest)
    ContentDigests(folder / "digests.json").digest(folder / "it/notes.json")
    select_trial([folder / "job/best.json"], folder / "best.json")
    read_selections([folder / "job/best.json"])


# ---- trainings of killed jobs ----

RUN = {"model": "m", "method": "full", "dataset": "it"}
TRIALS = [
    {"trial": 0, "learning_rate": 0.05, "weight_decay": 0.0},
    {"trial": 1, "learning_rate": 0.01, "weight_decay": 0.0},
]
RECIPE = {"epochs": 3, "towers": "both", "search": {"kind": "grid"}}


class SmallTrainer:
    """Trains eight numbers in the place of a model, so that a job takes milliseconds."""

    def __init__(self):
        self.made_from = {"weights": "w"}
        self.labels = {"train": [0]}

    def start_trial(self, trial):
        number = torch.nn.Parameter(torch.linspace(0, 1, 8))
        optimizer = torch.optim.AdamW([number], lr=trial["learning_rate"])
        return TrainableModel({"number": number}), optimizer

    def train_epoch(self, trial, epoch, optimizer, trainable):
        loss = (trainable.parameters["number"] * (epoch + 1)).square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        accuracy = 1 / (1 + loss.item())
        return {**get_trial_columns(trial), "epoch": epoch + 1, "loss": loss.item(),
                "val_accuracy": accuracy, "learning_rate": 0.1, "images_per_second": 9.0,
                "ended": None}  # fmt: skip


finetune.code_digest = functools.cache(finetune.code_digest)


def make_job(folder: Path, log=lambda line: None) -> FineTuningJob:
    return FineTuningJob(JobSpec(RUN, RECIPE, TRIALS, 0, folder, folder), SmallTrainer(), log)


def read_outcome(folder: Path) -> tuple:
    """Return what a job must reach, killed or not: its epochs, its choice and the weights."""
    best = json.loads((folder / "best.json").read_text())
    epochs = pq.read_table(folder / "epochs.parquet").to_pylist()
    return epochs, {k: v for k, v in best.items() if k != "trained_weights"}


def make_journal(folder: Path) -> Seeds:
    """Write the state of a job that was killed in its second trial, and the right outcome."""
    make_job(folder / "right").train()
    lines: list[str] = []

    def kill(line) -> None:
        lines.append(line)
        if len(lines) == 4:
            raise KeyboardInterrupt

    try:
        make_job(folder / "job", kill).train()
    except KeyboardInterrupt:
        return get_seeds(folder, "job/state/*")
    raise AssertionError("it was not killed")


def read_journal(folder: Path) -> None:
    lines: list[str] = []
    make_job(folder / "job", lines.append).train()
    assert read_outcome(folder / "job") == read_outcome(folder / "right"), lines


# ---- weights ----


def make_weights(folder: Path) -> Seeds:
    save_file(WEIGHTS, folder / "w.safetensors")
    torch.save(WEIGHTS, folder / "w.pt")
    torch.save({"state_dict": WEIGHTS, "epoch": 3}, folder / "w.bin",
               _use_new_zipfile_serialization=False)  # fmt: skip
    trained = {
        n: p.detach().clone() for n, p in make_trainable(MODEL, "full", SETTINGS).parameters.items()
    }
    save_file(trained, folder / "t.safetensors", describe_trained_weights("full", SETTINGS))
    return get_seeds(folder, "*")


SETTINGS = {"towers": "both"}


def read_weights(folder: Path) -> None:
    try:
        for name in ("w.safetensors", "w.pt", "w.bin"):
            load_weights(MODEL, folder / name)
        apply_trained_weights(MODEL, folder / "t.safetensors")
    finally:
        MODEL.load_state_dict(WEIGHTS)


# ---- studies ----


def make_studies(folder: Path) -> Seeds:
    seeds = [("study.yaml", path.read_bytes()) for path in sorted(ROOT.glob("studies/*.yaml"))]
    (folder / "study.yaml").write_bytes((ROOT / "config.yaml").read_bytes())
    return [("study.yaml", (ROOT / "config.yaml").read_bytes()), *seeds]


def read_study_file(folder: Path) -> None:
    study = check_config(read_study(folder / "study.yaml"))
    json.dumps(study, sort_keys=True)  # as the rules' params
    for recipe in study["methods"].values():
        if "learning_rate" in recipe:
            expand_grid(recipe)


READERS = DATA_READERS | {
    "npy": Reader(make_npy, read_npy, values=fuzz_values.make_arrays),
    "results": Reader(make_results, read_results),
    "journal": Reader(make_journal, read_journal),
    "weights": Reader(make_weights, read_weights),
    "study": Reader(make_studies, read_study_file, values=fuzz_values.make_studies),
}
