"""Training on cached embeddings: probes and adapters, all trials of a grid together.

No image is read and no tower runs. Trials are trained in stacks of equal shapes; the trials of a
stack share every batch and no parameter.
"""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from foretune.core.config import PROBE_METHODS
from foretune.core.entries import Recipe
from foretune.core.errors import ForetuneError
from foretune.data.prepared import read_manifest
from foretune.encoders.cache import read_embeddings
from foretune.training.clip_adapter import make_adapter_stacks
from foretune.training.linear_probe import StackedProbes
from foretune.training.lp_plus_plus import StackedLPPlusPlus
from foretune.training.stacked_trials import StackedOptimizer, TrialStack
from foretune.training.text_probe import StackedTextProbes
from foretune.training.trials import (
    EpochRow,
    JobSpec,
    describe_divergence,
    get_trial_columns,
    is_better,
    write_results,
)


class LabelledVectors(NamedTuple):
    """The raw image embeddings (N, d) of a split and their labels (N,)."""

    vectors: Tensor
    labels: Tensor


def fit_on_embeddings(job: JobSpec, embeddings: Path, log: Callable[[str], object] = print) -> None:
    """Train all trials of one (model, method, dataset) and write the job's three files.

    The best epoch of the best trial by validation accuracy is kept. A trial whose loss or weights
    are no longer finite ends there and is never selected.

    Args:
        embeddings: folder of the model's embedding caches of the dataset.
    """
    data, stacks = read_training_data(job, embeddings)
    rows: list[EpochRow] = []
    best: EpochRow | None = None
    trained_weights = None
    name = f"{job.run['dataset']} {job.run['method']}"
    progress = tqdm(  # shown after 5 seconds only
        total=len(stacks) * job.recipe["epochs"], desc=name, mininterval=5, delay=5, unit="epoch"
    )
    for stack in stacks:
        for epoch_rows in train_stack(stack, data, job.recipe, job.seed):
            progress.update()
            best_index = None
            for index, row in epoch_rows.items():
                rows.append(row)
                if row["ended"]:
                    log(f"{name}: trial {row['trial']} diverged in epoch {row['epoch']}")
                elif is_better(row, best):
                    best, best_index = row, index
            if best_index is not None:
                trained_weights = stack.get_trained_weights(best_index)
    progress.close()
    rows.sort(key=lambda row: (row["trial"], row["epoch"]))
    write_results(job, rows, best, trained_weights)
    result = f"best validation {best['val_accuracy']:.3f}" if best else describe_divergence(job.run)
    log(f"{name}: {len(job.trials)} trials, {result}")


def read_training_data(
    job: JobSpec, embeddings: Path
) -> tuple[dict[str, LabelledVectors], list[TrialStack]]:
    """Return the vectors of "train" and "val", and the job's trials in stacks.

    The vectors are of unit length for methods that compare them with captions as the model does.

    Raises:
        ForetuneError: a cache is missing its logit scale or was made from something else.
    """
    manifest, data = read_manifest(job.dataset), {}
    for split in ("train", "val"):
        images = read_embeddings(embeddings / f"{split}.parquet", dataset=manifest["digest"])
        rows = job.draw_rows(split, images.columns["label"])
        labels = torch.from_numpy(images.columns["label"][rows].copy()).long()
        data[split] = LabelledVectors(torch.from_numpy(images.vectors[rows].copy()), labels)
    if job.method in PROBE_METHODS:  # which read no captions
        width = images.vectors.shape[1]
        return data, [StackedProbes(job.trials, width, len(manifest["classes"]))]
    path, weights = embeddings / "text.parquet", images.metadata["weights"]
    texts = read_embeddings(path, dataset=manifest["digest"], weights=weights)
    if "logit_scale" not in texts.metadata:
        raise ForetuneError(f"{path}: has no logit_scale; delete it and run again")
    captions, scale = torch.from_numpy(texts.vectors.copy()), texts.metadata["logit_scale"]
    if job.method == "clip_adapter":
        return data, [*make_adapter_stacks(job.trials, captions, scale, job.recipe, job.seed)]
    data = {split: part._replace(vectors=F.normalize(part.vectors)) for split, part in data.items()}
    if job.method == "text_probe":
        return data, [StackedTextProbes(job.trials, captions, scale)]
    momentum = job.recipe["momentum"]
    return data, [StackedLPPlusPlus(job.trials, captions, *data["train"], momentum)]


def train_stack(
    stack: TrialStack, data: dict[str, LabelledVectors], recipe: Recipe, seed: int
) -> Iterator[dict[int, EpochRow]]:
    """Train a stack, and yield the rows of each epoch by the trial's index in the stack.

    A trial that has diverged has no further rows; the training ends when none is left.

    Args:
        data: the vectors of "train" and "val".
    """
    images, labels = data["train"]
    optimizer = StackedOptimizer(recipe, stack.trials, stack.parameters)
    running = dict(enumerate(stack.trials))
    for epoch in range(recipe["epochs"]):
        started = time.monotonic()
        batches = draw_batches(len(labels), recipe["batch_size"], seed, epoch)
        loss_sums = torch.zeros(len(stack.trials))
        for batch in batches:
            losses, gradients = stack.losses(
                images[batch], labels[batch], recipe["label_smoothing"]
            )
            share = optimizer.step(gradients, len(batches))
            loss_sums += losses * len(batch)
        speed = len(labels) / (time.monotonic() - started)
        accuracies = validate_stack(stack, *data["val"], recipe["batch_size"]).tolist()
        mean_losses = (loss_sums / len(labels)).tolist()
        finite_parts = [p.flatten(1).isfinite().all(dim=1) for p in stack.parameters]
        finite = torch.stack(finite_parts).all(dim=0).tolist()
        diverged = [
            not (math.isfinite(mean_loss) and is_finite)
            for mean_loss, is_finite in zip(mean_losses, finite, strict=True)
        ]
        rows: dict[int, EpochRow] = {}
        for index, trial in running.items():
            rows[index] = {
                **get_trial_columns(trial),
                "epoch": epoch + 1,
                "loss": mean_losses[index],
                "val_accuracy": accuracies[index],
                "learning_rate": share * trial["learning_rate"],
                "images_per_second": speed,
                "ended": "diverged" if diverged[index] else None,
            }
        running = {i: trial for i, trial in running.items() if not diverged[i]}
        yield rows
        if not running:
            return


def draw_batches(n: int, batch_size: int, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """Return the row numbers (B,) of each batch of an epoch over n rows."""
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return torch.from_numpy(order).split(batch_size)


def validate_stack(stack: TrialStack, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    """Return the accuracies (G,) on images (N, d) and labels (N,)."""
    batches = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    correct = [
        (stack.logits(vectors).argmax(dim=1) == batch_labels).sum(dim=1)
        for vectors, batch_labels in batches
    ]
    return torch.stack(correct).sum(dim=0).double() / len(labels)
