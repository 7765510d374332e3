"""Tests of the parts of the epoch loop: augmentation, training mode, learning rate."""

import numpy as np
import pytest
import torch

from foretune.training.augment import augment
from foretune.training.optim import compute_learning_rate
from foretune.training.trainer import set_train_mode


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
