"""The rehearsal of a small task, and the extrapolation of its learning curve."""

import numpy as np
import pytest

from foretune.data.prepared import read_manifest
from foretune.encoders.cache import read_embeddings
from foretune.forecast.learning_curve import extrapolate, measure_decay
from foretune.forecast.rehearsal import (
    PREDICTORS,
    RehearsalImages,
    read_rehearsal_images,
    rehearse,
)


def test_rehearse_measures_a_real_task(small_task):
    images, weights = read_rehearsal_images(
        small_task / "embeddings", read_manifest(small_task / "dataset")
    )
    hidden = read_embeddings(small_task / "embeddings/train_hidden.parquet")
    assert hidden.metadata["weights"] == weights and hidden.metadata["kind"] == "hidden"
    assert images.hidden.shape == (90, 256)  # the mean and the deviation of a block of width 128
    rehearsal, table = rehearse(images, seed=0)
    assert list(rehearsal["measures"]) == list(PREDICTORS) and rehearsal["n"] == 90
    accuracies = list(rehearsal["measures"].values())[:-1]
    assert all(0.5 < accuracy <= 1 for accuracy in accuracies)  # MNIST is easy for this encoder
    assert accuracies[-1] == pytest.approx((table.probe == table.label).mean())
    low, high = rehearsal["details"]["probe_accuracy"]["interval"]
    assert low < rehearsal["measures"]["probe_accuracy"] < high
    assert sum(row["n"] for row in rehearsal["classes"]) == 90 and not rehearsal["grouped"]
    assert "only 90 training images" in rehearsal["notes"][0]
    right = table.probe == table.label
    assert (table.margin[right] >= 0).all() and (table.margin[~right] <= 0).all()
    again, same = rehearse(images, seed=0)
    assert again == rehearsal and same.equals(table)


def make_images(n=240, classes=4, seed=0, **facts) -> RehearsalImages:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = rng.normal(size=(classes, 16))
    vectors = centres[labels] + rng.normal(0, 1.2, (n, 16))
    fields = {"groups": np.full(n, None, object)} | facts
    return RehearsalImages(
        np.arange(n).astype(str), vectors, rng.normal(size=(n, 6)), centres, labels,
        fields["groups"], [f"class {label}" for label in range(classes)],
    )  # fmt: skip


def test_rehearse_is_not_fooled_by_twins():
    """Each image has a copy. If the copies are groups, no fold predicts a copy from its twin."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)  # noise: nothing can be learned
    vectors = rng.normal(size=(60, 64))
    twice, ids = np.repeat(np.arange(60), 2), np.arange(120).astype(str)
    accuracy = {}
    for grouped in (False, True):
        groups = np.array([f"g{i}" for i in twice] if grouped else [None] * 120, object)
        images = RehearsalImages(ids, vectors[twice], vectors[twice][:, :8], vectors[:2],
                                 labels[twice], groups, ["a", "b"])  # fmt: skip
        rehearsal, _ = rehearse(images, seed=0)
        accuracy[grouped] = rehearsal["measures"]["probe_accuracy"]
        assert rehearsal["grouped"] == grouped
    assert accuracy[False] > 0.75 and 0.25 < accuracy[True] < 0.7


def test_rehearse_finds_wrong_labels():
    images = make_images(n=240)
    wrong = np.arange(0, 240, 40)
    images.labels[wrong] = (images.labels[wrong] + 1) % 4
    _, table = rehearse(images, seed=0)
    suspects = table.sort_values("margin").index[: 2 * len(wrong)]
    assert len(set(suspects) & set(wrong)) >= 4


def test_rehearse_draws_a_learning_curve():
    rehearsal, _ = rehearse(make_images(n=800), seed=0)
    curve = rehearsal["learning_curve"]
    assert [point["n"] for point in curve] == [80, 160, 320, 640]
    assert curve[-1]["accuracy"] == rehearsal["measures"]["hidden_probe_accuracy"]
    assert curve[0]["accuracy"] < curve[-1]["accuracy"]
    few, _ = rehearse(make_images(n=24), seed=0)
    assert [point["n"] for point in few["learning_curve"]] == [10, 19]


def test_extrapolate_continues_a_power_law():
    curve = [{"n": n, "accuracy": 1 - 2 * n**-0.5} for n in (25, 50, 100, 200)]
    exponent, slowest, fastest = measure_decay(curve)
    assert (exponent, fastest) == pytest.approx((0.5, 0.75)) and slowest == 0
    rows = extrapolate(0.9, curve, n=250).set_index("times")
    assert list(rows.n) == [250, 500, 1000, 2000]
    assert rows.expected[1] == rows.low[1] == rows.high[1] == 0.9
    assert rows.expected[4] == pytest.approx(0.95) and rows.low[4] == pytest.approx(0.89)
    assert extrapolate(0.9, curve[:2], 250).empty


def test_extrapolate_expects_nothing_of_a_flat_curve():
    curve = [{"n": n, "accuracy": 0.7} for n in (25, 50, 100, 200)]
    assert (extrapolate(0.8, curve, 250).expected == 0.8).all()
    perfect = [{"n": n, "accuracy": 1.0} for n in (25, 50, 100, 200)]
    assert np.isfinite(extrapolate(1.0, perfect, 250).expected).all()
