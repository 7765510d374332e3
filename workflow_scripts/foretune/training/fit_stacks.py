"""Training of stacks of trials on cached embeddings, and the choice of the best epoch."""

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from foretune.core.entries import Recipe
from foretune.training.stacked_trials import StackedOptimizer, TrialStack
from foretune.training.trials import EpochRow, get_trial_columns, is_better


class LabelledVectors(NamedTuple):
    """The raw image embeddings (N, d) of a split and their labels (N,)."""

    vectors: Tensor
    labels: Tensor


class FittedTrials(NamedTuple):
    """The rows of all epochs, the best of them, and its weights; no best one if all diverged."""

    rows: list[EpochRow]
    best: EpochRow | None
    trained_weights: dict[str, Tensor] | None


def fit_stacks(
    stacks: list[TrialStack], data: dict[str, LabelledVectors], recipe: Recipe, seed: int,
    name: str, log: Callable[[str], object],
) -> FittedTrials:  # fmt: skip
    """Train all stacks, and return their rows and the best epoch by validation accuracy.

    Args:
        data: the vectors of "train" and "val".
        name: what is trained, for people.
    """
    rows: list[EpochRow] = []
    best: EpochRow | None = None
    trained_weights = None
    progress = tqdm(  # shown after 5 seconds only
        total=len(stacks) * recipe["epochs"], desc=name, mininterval=5, delay=5, unit="epoch"
    )
    for stack in stacks:
        for epoch_rows in train_stack(stack, data, recipe, seed):
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
    return FittedTrials(rows, best, trained_weights)


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
