"""Tests of the parts of the epoch loop: augmentation, draws, training mode, learning rate."""

import dataclasses

import numpy as np
import pytest
import torch

from checkout import CLIP_MINI
from foretune.data.splits import draw_shots
from foretune.encoders.encode import embed_captions
from foretune.training.augment import augment
from foretune.training.optim import compute_learning_rate
from foretune.training.trainer import Trainer, set_train_mode
from foretune.training.trials import JobSpec

RUN = {"model": "clip_mini", "method": "full", "dataset": "mnist"}
RECIPE = {
    "optimizer": "adamw", "epochs": 1, "batch_size": 32, "schedule": "constant",
    "warmup_epochs": 0, "label_smoothing": 0, "towers": "both", "precision": "fp32",
    "compile": False, "augmentation": {"crop": 1, "flip": False},
}  # fmt: skip
TRIALS = [{"trial": 0, "learning_rate": 1e-3, "weight_decay": 0.0}]


def test_augment_crops_inside_and_mirrors():
    images = torch.arange(8.0).expand(64, 3, 8, 8)  # each pixel has the number of its column
    draws = torch.rand(4, 64, generator=torch.Generator().manual_seed(0))
    assert augment(images, {"crop": 1, "flip": False}, draws) is images
    flipped = augment(images, {"crop": 1, "flip": True}, draws)
    mirrored = [torch.allclose(new, old.flip(-1)) for new, old in zip(flipped, images, strict=True)]
    kept = [torch.allclose(new, old) for new, old in zip(flipped, images, strict=True)]
    assert all(m ^ k for m, k in zip(mirrored, kept, strict=True)) and 16 < sum(mirrored) < 48
    cropped = augment(images, {"crop": 0.25, "flip": False}, draws)
    steps = (cropped[:, 0, 0, 4] - cropped[:, 0, 0, 3]).numpy()  # 0.5 for a crop of half a side
    assert steps.min() > 0.49 and steps.max() < 1.01 and np.ptp(steps) > 0.3
    middles = cropped.mean(dim=(1, 2, 3)).numpy()
    assert middles.min() >= 1.4 and middles.max() <= 5.6 and np.ptp(middles) > 1


def test_set_train_mode_keeps_the_statistics_of_batch_norms():
    tower = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout())
    set_train_mode(tower)
    tower(torch.ones(4, 2) * 9)
    assert tower[1].training and torch.equal(tower[0].running_mean, torch.zeros(2))


def test_compute_learning_rate_warms_up_and_decays():
    recipe = {"warmup_epochs": 1, "epochs": 3, "schedule": "cosine"}
    rates = [compute_learning_rate(recipe, 1.0, step, 4) for step in range(13)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == pytest.approx(0.5) and rates[12] == pytest.approx(0)
    assert compute_learning_rate({**recipe, "schedule": "constant"}, 0.3, 9, 4) == 0.3


def test_each_step_draws_one_caption_of_each_class(small_task, tmp_path):
    text = tmp_path / "text.parquet"
    templates = ["a photo of a {}", "a drawing of a {}", "a {}"]
    embed_captions(CLIP_MINI, small_task / "dataset", templates, text)
    job = JobSpec(RUN, RECIPE, TRIALS, 0, small_task / "dataset", tmp_path)
    trainer = Trainer(job, CLIP_MINI, text, log=lambda line: None)
    classes = len(trainer.captions)
    tokens = trainer.tokenizer([c for of_class in trainer.captions for c in of_class])
    seen = set()
    for step in range(20):
        trainer.draw_captions(step)
        assert trainer.tokens.shape == (classes, tokens.shape[1])
        for label, row in enumerate(trainer.tokens):
            matches = (tokens.view(classes, 3, -1)[label] == row).all(dim=1).nonzero().flatten()
            seen.add((label, int(matches[0])))
    assert len(seen) == 3 * classes  # each caption of each class was drawn
    before = trainer.tokens.clone()
    trainer.draw_captions(3)
    trainer.draw_captions(19)
    assert (trainer.tokens == before).all()  # by the seed and the step alone


def test_few_shots_train_and_validate(small_task, tmp_path):
    recipe = {**RECIPE, "shots": 6}
    job = JobSpec(RUN, recipe, TRIALS, 0, small_task / "dataset", tmp_path)
    text = small_task / "embeddings/text.parquet"
    trainer = Trainer(job, CLIP_MINI, text, log=lambda line: None)
    whole = Trainer(dataclasses.replace(job, recipe=RECIPE), CLIP_MINI, text, log=lambda line: None)
    counts = whole.labels["train"].bincount()
    assert trainer.labels["train"].bincount().tolist() == counts.clamp(max=6).tolist()
    counts = whole.labels["val"].bincount()
    assert trainer.labels["val"].bincount().tolist() == counts.clamp(max=4).tolist()
    rows = draw_shots(whole.labels["train"].numpy(), 6, 0)
    assert (trainer.images["train"] == whole.images["train"][rows]).all()
