"""A pilot: a few steps of fine-tuning on a part of the training images, tested on others of them.

Neither the validation nor the test split is read. Of a study, every dataset has a pilot, so that
forecasts can learn how far an accuracy after a few steps is from the one after all steps.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from foretune.core.entries import ModelSpec, PilotFile, Recipe
from foretune.data.prepared import read_split
from foretune.data.splits import draw_rows
from foretune.training.trainer import Trainer
from foretune.training.trials import JobSpec

HELD_BACK = 1 / 5  # of the training images
MOST_TESTED = 1000  # held-back images


def plan_pilot(recipe: Recipe, steps: int, images: int) -> tuple[Recipe, int]:
    """Return the recipe of a pilot, and how many of the images that may be fitted each epoch sees.

    The epochs are as few as allow the steps, and no more than the recipe's, so that a pilot never
    takes more steps than the fine-tuning itself. The warm-up has the recipe's share of the steps.
    """
    size = recipe["batch_size"]
    per_epoch = max(1, images // size)
    epochs = min(recipe["epochs"], math.ceil(steps / per_epoch))
    used = min(images, max(1, steps // epochs) * size)
    warmup = recipe["warmup_epochs"] * epochs / recipe["epochs"]
    return {**recipe, "epochs": epochs, "warmup_epochs": warmup}, used


class PilotTrainer(Trainer):
    """A trainer whose validation split is a part of the training images.

    steps: of the pilot, see `plan_pilot`.
    """

    def __init__(self, steps: int, *arguments):
        self.steps = steps
        super().__init__(*arguments)

    def read_images(
        self, job: JobSpec, prepared: Path | None, log: Callable[[str], object]
    ) -> tuple[dict[str, np.ndarray], dict[str, Tensor]]:
        images, labels = self.read_split_images(job, "train", prepared, log)
        columns = read_split(job.dataset, "train", ["group"])
        groups = columns["group"].to_pylist()
        named = [group or f"\0{row}" for row, group in enumerate(groups)]
        held = draw_rows(labels.tolist(), named, HELD_BACK, 1, job.seed)
        rng = np.random.default_rng(job.seed)
        fitted, tested = (rng.permutation(np.flatnonzero(rows)) for rows in (~held, held))
        self.recipe, used = plan_pilot(self.recipe, self.steps, len(fitted))
        rows = {"train": np.sort(fitted[:used]), "val": np.sort(tested[:MOST_TESTED])}
        return (
            {split: images[chosen] for split, chosen in rows.items()},
            {split: labels[chosen] for split, chosen in rows.items()},
        )


def run_pilot(
    job: JobSpec, steps: int, model_spec: ModelSpec, text_cache: Path,
    prepared: Path | None = None, log: Callable[[str], object] = print,
) -> PilotFile:  # fmt: skip
    """Fine-tune the only trial of a job for some steps, and return what it reached.

    Args:
        job: its output is not used.
        text_cache: embedding cache of the captions.
        prepared: folder where prepared images are kept (see `encoders.image_cache`).
    """
    (trial,) = job.trials
    trainer = PilotTrainer(steps, job, model_spec, text_cache, prepared, log)
    trainable, optimizer = trainer.start_trial(trial)
    started = time.monotonic()
    for epoch in range(trainer.recipe["epochs"]):
        row = trainer.train_epoch(trial, epoch, optimizer, trainable)
    seconds = time.monotonic() - started
    per_epoch = math.ceil(len(trainer.labels["train"]) / trainer.recipe["batch_size"])
    return {
        **job.run, "accuracy": row["val_accuracy"], "n": len(trainer.labels["val"]),
        "steps": trainer.recipe["epochs"] * per_epoch, "steps_asked": steps,
        "learning_rate": trial["learning_rate"], "seconds": seconds, "loss": row["loss"],
    }  # fmt: skip
