"""Training on cached embeddings: linear probes and adapters, all trials of a grid together.

No pixel is read and no tower run. Trials are trained in stacks (of equal shapes), which share
every batch and no parameter.
"""

import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from foretune.core.config import PROBE_METHODS
from foretune.core.errors import ForetuneError
from foretune.data.prepared import read_manifest
from foretune.encoders.cache import read_embeddings
from foretune.training.clip_adapter import make_adapter_stacks
from foretune.training.linear_probe import StackedProbes
from foretune.training.stacked_trials import StackedOptimizer
from foretune.training.trials import get_trial_columns, is_better, write_results


def fit_on_embeddings(
    run, dataset: Path, embeddings: Path, recipe, trials, seed: int, output: Path, log=print
) -> None:
    """Train all trials of one (model, method, dataset) and write `output`'s three files.

    The best epoch of the best trial by validation accuracy is kept; a trial whose loss or
    weights are no longer finite ends there and is never chosen.
    Raises ForetuneError where all trials ended so.
    """
    manifest, data = read_manifest(dataset), {}
    for split in ("train", "val"):
        images = read_embeddings(embeddings / f"{split}.parquet", dataset=manifest["digest"])
        labels = torch.from_numpy(images.columns["label"].copy()).long()
        data[split] = torch.from_numpy(images.vectors.copy()), labels
    if run["method"] in PROBE_METHODS:  # other captions change nothing of a probe
        stacks = [StackedProbes(trials, images.vectors.shape[1], len(manifest["classes"]))]
    else:
        path, weights = embeddings / "text.parquet", images.metadata["weights"]
        texts = read_embeddings(path, dataset=manifest["digest"], weights=weights)
        if "logit_scale" not in texts.metadata:
            raise ForetuneError(f"{path}: has no logit_scale; delete it and run again")
        captions, scale = torch.from_numpy(texts.vectors.copy()), texts.metadata["logit_scale"]
        stacks = make_adapter_stacks(trials, captions, scale, recipe, seed)
    rows, best, trained_weights = [], None, {}
    name = f"{run['dataset']} {run['method']}"
    epochs = tqdm(  # shown only where it takes long
        total=len(stacks) * recipe["epochs"], desc=name, mininterval=5, delay=5, unit="epoch"
    )
    for stack in stacks:
        for of_epoch in train_stack(stack, data, recipe, seed):
            epochs.update()
            chosen = None
            for number, row in of_epoch.items():
                rows.append(row)
                if row["ended"]:
                    log(f"{name}: trial {row['trial']} diverged in epoch {row['epoch']}")
                elif is_better(row, best):
                    best, chosen = row, number
            if chosen is not None:
                trained_weights = stack.get_trained_weights(chosen)
    epochs.close()
    rows.sort(key=lambda row: (row["trial"], row["epoch"]))
    write_results(output, run, rows, best, trained_weights)
    log(f"{name}: {len(trials)} trials, best validation {best['val_accuracy']:.3f}")


def train_stack(stack, data: dict[str, tuple[Tensor, Tensor]], recipe: dict, seed: int):
    """Yield each epoch's rows by the trial's number in the stack, as long as one goes on.

    data: (vectors (N, d), labels (N,)) of "train" and "val".
    """
    images, labels = data["train"]
    optimizer = StackedOptimizer(recipe, stack.trials, stack.parameters)
    alive = dict(enumerate(stack.trials))
    for epoch in range(recipe["epochs"]):
        started = time.monotonic()
        batches = draw_batches(len(labels), recipe["batch_size"], seed, epoch)
        total = torch.zeros(len(stack.trials))
        for batch in batches:
            losses, gradients = stack.losses(
                images[batch], labels[batch], recipe["label_smoothing"]
            )
            share = optimizer.step(gradients, len(batches))
            total += losses * len(batch)
        speed = len(labels) / (time.monotonic() - started)
        accuracies = validate_stack(stack, *data["val"], recipe["batch_size"]).tolist()
        means, rows = (total / len(labels)).tolist(), {}
        finite = [p.flatten(1).isfinite().all(dim=1) for p in stack.parameters]
        finite = torch.stack(finite).all(dim=0).tolist()
        for i, trial in list(alive.items()):
            rows[i] = {
                **get_trial_columns(trial),
                "epoch": epoch + 1,
                "loss": means[i],
                "val_accuracy": accuracies[i],
                "learning_rate": share * trial["learning_rate"],
                "images_per_second": speed,
                "ended": None if math.isfinite(means[i]) and finite[i] else "diverged",
            }
            if rows[i]["ended"]:
                del alive[i]
        yield rows
        if not alive:
            return


def draw_batches(n: int, batch_size: int, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """The row numbers (B,) of each batch of an epoch over n rows."""
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return torch.from_numpy(order).split(batch_size)


def validate_stack(stack, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    """Accuracies (G,) on images (N, d) and labels (N,)."""
    right = [
        (stack.logits(some).argmax(dim=1) == wanted).sum(dim=1)
        for some, wanted in zip(images.split(batch_size), labels.split(batch_size), strict=True)
    ]
    return torch.stack(right).sum(dim=0).double() / len(labels)
