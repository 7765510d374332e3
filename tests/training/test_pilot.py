"""Pilots: how many steps they take, on which images, and what they reach."""

import numpy as np
import pytest
import torch

from checkout import CLIP_MINI
from foretune.training.pilot import PilotTrainer, plan_pilot, run_pilot
from foretune.training.trials import JobSpec

RUN = {"model": "clip_mini", "method": "full", "dataset": "mnist"}
RECIPE = {
    "optimizer": "adamw", "epochs": 4, "batch_size": 16, "schedule": "cosine", "warmup_epochs": 1,
    "clip_norm": 1.0, "label_smoothing": 0, "towers": "both", "precision": "auto",
    "compile": False, "augmentation": {"crop": 1, "flip": False}, "search": {"kind": "grid"},
}  # fmt: skip
TRIAL = {"trial": 0, "learning_rate": 5e-4, "weight_decay": 1e-4}


@pytest.mark.parametrize(
    ("steps", "images", "epochs", "used"),
    [
        (100, 50_000, 1, 1600),  # a part of the images, once
        (100, 640, 3, 528),  # 33 steps in each of 3 epochs
        (100, 80, 4, 80),  # no more epochs than the fine-tuning itself
        (3, 7, 3, 7),  # fewer images than a batch
    ],
)
def test_plan_pilot_takes_the_steps_in_as_few_epochs_as_it_can(steps, images, epochs, used):
    recipe, count = plan_pilot(RECIPE, steps, images)
    assert (recipe["epochs"], count) == (epochs, used)
    assert recipe["warmup_epochs"] == epochs / 4  # the share of the steps stays a quarter
    assert epochs * -(-count // 16) <= steps


def test_pilot_is_tested_on_training_images_that_it_was_not_fitted_on(small_task, tmp_path):
    torch.set_num_threads(1)
    job = JobSpec(RUN, RECIPE, [TRIAL], 0, small_task / "dataset", tmp_path)
    arguments = (CLIP_MINI, small_task / "embeddings/text.parquet", tmp_path / "prepared")
    lines = []
    trainer = PilotTrainer(4, job, *arguments, lines.append)
    assert not any("val" in line or "test" in line for line in lines)  # neither split is read
    fitted, tested = (trainer.images[split].reshape(len(trainer.labels[split]), -1)
                      for split in ("train", "val"))  # fmt: skip
    assert len(fitted) == 64 and 10 <= len(tested) <= 20
    assert not {row.tobytes() for row in np.asarray(fitted)} & {row.tobytes() for row in tested}
    assert set(trainer.labels["val"].tolist()) == set(range(10))
    pilot, again = (run_pilot(job, 4, *arguments, lines.append) for _ in range(2))
    assert pilot["steps"] == pilot["steps_asked"] == 4 and pilot["n"] == len(tested)
    assert pilot["accuracy"] == again["accuracy"] and 0 <= pilot["accuracy"] <= 1
    assert RUN.items() <= pilot.items() and pilot["seconds"] > 0
