"""Drawing rows of a split."""

import numpy as np

from foretune.data.splits import draw_shots


def test_shots_are_drawn_per_class_and_nested():
    labels = np.array([0] * 10 + [1] * 3 + [2] * 7)
    drawn = {shots: draw_shots(labels, shots, seed=5) for shots in (1, 4)}
    assert np.bincount(labels[drawn[1]]).tolist() == [1, 1, 1]
    assert np.bincount(labels[drawn[4]]).tolist() == [4, 3, 4]  # a class has three images only
    assert set(drawn[1]) < set(drawn[4])
    assert (np.diff(drawn[4]) > 0).all()


def test_another_seed_draws_other_images():
    labels = np.zeros(100, int)
    assert draw_shots(labels, 5, 0).tolist() == draw_shots(labels, 5, 0).tolist()
    assert draw_shots(labels, 5, 0).tolist() != draw_shots(labels, 5, 1).tolist()
