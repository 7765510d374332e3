"""Embedding drift: the Wasserstein distances and the bounds on the change of IIMM."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from foretune.core.errors import ForetuneError
from foretune.encoders.streams import ArraySource
from foretune.measures.drift import measure_drift, wasserstein_distance


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_wasserstein_distance_is_that_of_the_best_assignment():
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(40, 6)), rng.normal(size=(40, 6)) + 0.5
    cost = cdist(before, after)
    expected = cost[linear_sum_assignment(cost)].mean()
    assert wasserstein_distance(before, after) == pytest.approx(expected, rel=1e-9)
    assert wasserstein_distance(before, before[::-1]) == pytest.approx(0, abs=1e-12)


def test_wasserstein_distance_of_an_example_by_hand():
    # One of three points moves by 1; the order of the points does not matter.
    before, after = np.zeros((3, 2)), np.array([[0.0, 0], [0, 1], [0, 0]])
    assert wasserstein_distance(before, after) == pytest.approx(1 / 3)


@given(
    st.integers(2, 20), st.integers(2, 5), st.integers(2, 6), st.floats(0, 3), st.integers(0, 99)
)
def test_measure_drift_bounds_hold(n, classes, width, size, seed):
    rng = np.random.default_rng(seed)
    images, texts = rng.normal(size=(n, width)), rng.normal(size=(classes, width))
    labels = rng.integers(0, classes, n)
    after = images + size * rng.normal(size=(n, width))
    texts_after = texts + size * rng.normal(size=(classes, width)) * rng.integers(0, 2)
    drift = measure_drift(
        ArraySource(images, texts, labels), ArraySource(after, texts_after, labels)
    )
    assert abs(drift["iimm_change"]) <= drift["bound"] + 1e-12
    assert abs(drift["iimm_change"]) <= drift["wasserstein_bound"] + 1e-12
    assert drift["wasserstein"] <= drift["wasserstein_by_class"] + 1e-9
    assert drift["wasserstein_by_class"] <= drift["mean_displacement"] + 1e-9


def test_measure_drift_bound_is_reached():
    """Each image and each text of two classes turns a little towards the other class."""
    images = texts = np.array([[1.0, 0], [0, 1]])
    step = 1e-4
    after = unit(np.array([[1, step], [step, 1]]))
    labels = np.array([0, 1])
    drift = measure_drift(ArraySource(images, texts, labels), ArraySource(after, after, labels))
    assert drift["iimm_change"] == pytest.approx(drift["bound"], rel=1e-3)
    # In the tighter bound, N / (N - 1) is 2 for two images.
    assert drift["wasserstein_bound"] == pytest.approx(3 * step, rel=1e-3)


def test_measure_drift_is_zero_if_nothing_moved():
    rng = np.random.default_rng(0)
    images, texts, labels = rng.normal(size=(30, 4)), rng.normal(size=(3, 4)), np.arange(30) % 3
    longer = ArraySource(2 * images, texts, labels)  # lengths do not count
    drift = measure_drift(ArraySource(images, texts, labels), longer)
    assert drift["text_displacement"] == 0
    assert drift["iimm_change"] == pytest.approx(0, abs=1e-14)
    assert drift["bound"] == pytest.approx(0, abs=1e-14)
    assert drift["wasserstein"] == pytest.approx(0, abs=1e-12)


def test_measure_drift_samples_by_seed_and_returns_the_size():
    rng = np.random.default_rng(0)
    images, texts, labels = rng.normal(size=(50, 4)), rng.normal(size=(3, 4)), np.arange(50) % 3
    before, after = (ArraySource(moved, texts, labels) for moved in (images, images + 1))
    first, again, other = (measure_drift(before, after, sample=20, seed=seed) for seed in (0, 0, 1))
    assert first == again and first["wasserstein_n"] == 20
    assert first["wasserstein"] != other["wasserstein"] and first["bound"] == other["bound"]


def test_measure_drift_refuses_other_images():
    x = np.eye(3)
    with pytest.raises(ForetuneError, match="not of the same images"):
        measure_drift(ArraySource(x, x, np.arange(3)), ArraySource(x[:2], x, np.arange(2)))
    with pytest.raises(ForetuneError, match="not of the same images"):
        measure_drift(ArraySource(x, x, np.arange(3)), ArraySource(x, x, np.array([0, 2, 1])))
