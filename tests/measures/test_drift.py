import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from foretune.core.errors import ForetuneError
from foretune.measures.drift import measure_drift, wasserstein_distance


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_wasserstein_is_the_best_assignment():
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(40, 6)), rng.normal(size=(40, 6)) + 0.5
    cost = cdist(before, after)
    expected = cost[linear_sum_assignment(cost)].mean()
    assert wasserstein_distance(before, after) == pytest.approx(expected, rel=1e-9)
    assert wasserstein_distance(before, before[::-1]) == pytest.approx(0, abs=1e-12)


def test_wasserstein_by_hand():
    # One of three points goes a distance of 1, whatever the order.
    before, after = np.zeros((3, 2)), np.array([[0.0, 0], [0, 1], [0, 0]])
    assert wasserstein_distance(before, after) == pytest.approx(1 / 3)


@given(
    st.integers(2, 20), st.integers(2, 5), st.integers(2, 6), st.floats(0, 3), st.integers(0, 99)
)
def test_the_change_of_iimm_is_within_the_bound(n, classes, width, size, seed):
    rng = np.random.default_rng(seed)
    images, texts = rng.normal(size=(n, width)), rng.normal(size=(classes, width))
    labels = rng.integers(0, classes, n)
    after = images + size * rng.normal(size=(n, width))
    texts_after = texts + size * rng.normal(size=(classes, width)) * rng.integers(0, 2)
    found = measure_drift(images, after, labels, texts, texts_after)
    assert abs(found["iimm_change"]) <= found["bound"] + 1e-12
    assert abs(found["iimm_change"]) <= found["wasserstein_bound"] + 1e-12
    assert found["wasserstein"] <= found["wasserstein_by_class"] + 1e-9
    assert found["wasserstein_by_class"] <= found["mean_displacement"] + 1e-9


def test_the_bound_is_reached():
    """Two classes in one place; one image and one text swing a little, straight at the others."""
    images = texts = np.array([[1.0, 0], [0, 1]])
    step = 1e-4
    after = unit(np.array([[1, step], [step, 1]]))
    found = measure_drift(images, after, np.array([0, 1]), texts, after)
    assert found["iimm_change"] == pytest.approx(found["bound"], rel=1e-3)
    # The narrower one has N / (N - 1) = 2 for these two images.
    assert found["wasserstein_bound"] == pytest.approx(3 * step, rel=1e-3)


def test_nothing_moved():
    rng = np.random.default_rng(0)
    images, texts, labels = rng.normal(size=(30, 4)), rng.normal(size=(3, 4)), np.arange(30) % 3
    found = measure_drift(images, 2 * images, labels, texts, texts)  # rays, not lengths
    assert found["iimm_change"] == found["text_displacement"] == 0
    assert found["bound"] == pytest.approx(0, abs=1e-15)
    assert found["wasserstein"] == pytest.approx(0, abs=1e-12)


def test_a_sample_is_seeded_and_said():
    rng = np.random.default_rng(0)
    images, texts, labels = rng.normal(size=(50, 4)), rng.normal(size=(3, 4)), np.arange(50) % 3
    first, again, other = (
        measure_drift(images, images + 1, labels, texts, texts, sample=20, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first == again and first["wasserstein_n"] == 20
    assert first["wasserstein"] != other["wasserstein"] and first["bound"] == other["bound"]


def test_other_images_are_refused():
    x = np.eye(3)
    with pytest.raises(ForetuneError, match="not of the same images"):
        measure_drift(x, x[:2], np.arange(3), x, x)
