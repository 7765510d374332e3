"""Probes in closed form, compared with scikit-learn and with fits of each fold."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestCentroid

from foretune.encoders.cache import normalize_rows
from foretune.forecast import probes
from foretune.forecast.probes import (
    cross_validate_centroids,
    cross_validate_neighbours,
    cross_validate_ridge,
    draw_folds,
    standardize_columns,
)


def make_clusters(n=200, width=12, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    vectors = rng.normal(size=(classes, width))[labels] + rng.normal(0, 0.9, (n, width))
    return vectors.astype(np.float32), labels


@pytest.mark.parametrize("width", [12, 300])  # fewer, and more, features than images
def test_cross_validate_ridge_agrees_with_scikit_learn(width):
    vectors, labels = make_clusters(width=width)
    features, folds = standardize_columns(vectors), draw_folds(labels, None, 5, 0)
    probe = cross_validate_ridge(features, labels, folds)
    for fold in range(5):
        fitted = folds != fold
        centred = features[fitted] - features[fitted].mean(axis=0)
        spectrum = np.linalg.eigvalsh(centred.T @ centred)
        side = min(centred.shape)  # the eigenvalues whose mean scales the penalty
        mean = spectrum.sum() / side
        theirs = Ridge(alpha=probe.penalty * mean).fit(features[fitted], np.eye(5)[labels[fitted]])
        expected = theirs.predict(features[~fitted])
        assert probe.scores[~fitted] == pytest.approx(expected, abs=2e-3)
    assert (probe.predicted == labels).mean() > 0.6


def test_cross_validate_ridge_fits_only_on_the_chosen_images(monkeypatch):
    vectors, labels = make_clusters()
    features, folds = standardize_columns(vectors), draw_folds(labels, None, 5, 0)
    chosen = np.arange(len(labels)) < 50
    probe = cross_validate_ridge(features, labels, folds, chosen)
    spoiled = np.where(chosen, labels, (labels + 1) % 5)
    # The labels of other images only decide the penalty; with one penalty they do nothing.
    monkeypatch.setattr(probes, "PENALTIES", (probe.penalty,))
    again = cross_validate_ridge(features, spoiled, folds, chosen)
    assert np.allclose(again.scores, probe.scores)
    monkeypatch.undo()
    assert (probe.predicted == labels).mean() < (
        cross_validate_ridge(features, labels, folds).predicted == labels
    ).mean()


@pytest.mark.parametrize("width", [12, 300])
def test_cross_validate_ridge_scores_only_the_images_to_test(width, monkeypatch):
    vectors, labels = make_clusters(width=width)
    features, folds = standardize_columns(vectors), draw_folds(labels, None, 5, 0)
    monkeypatch.setattr(probes, "PENALTIES", (0.01,))
    tested = np.arange(len(labels)) % 3 == 0
    probe, whole = (cross_validate_ridge(features, labels, folds, None, mask)
                    for mask in (tested, None))  # fmt: skip
    assert probe.scores == pytest.approx(whole.scores[tested], abs=1e-6)


def test_cross_validate_neighbours_and_centroids_find_clusters():
    vectors, labels = make_clusters()
    units, folds = normalize_rows(vectors), draw_folds(labels, None, 5, 0)
    right = cross_validate_neighbours(units, labels, folds, 0)
    for row in (0, 1, 57):
        others = np.flatnonzero(folds != folds[row])
        nearest = others[np.argsort(-(units[others] @ units[row]))[:10]]
        votes = np.bincount(labels[nearest], np.exp(units[nearest] @ units[row]), 5)
        assert right[row] == (votes.argmax() == labels[row])
    predicted = cross_validate_centroids(units, labels, folds)
    fitted = folds != 2
    means = NearestCentroid().fit(units[fitted], labels[fitted]).centroids_
    expected = (units[~fitted] @ normalize_rows(means).T).argmax(axis=1)
    assert np.array_equal(predicted[~fitted], expected)


def test_draw_folds_keeps_groups_together_and_spreads_classes():
    labels = np.repeat(np.arange(4), 30)
    groups = np.array([f"g{number // 3}" for number in range(120)], object)
    folds = draw_folds(labels, groups, 5, 0)
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups))
    for label in range(4):
        assert np.ptp(np.bincount(folds[labels == label], minlength=5)) <= 3
    alone = draw_folds(labels, None, 5, 0)
    for label in range(4):
        assert set(np.bincount(alone[labels == label])) == {6}
    assert not np.array_equal(alone, draw_folds(labels, None, 5, 1))


def test_a_constant_column_and_a_class_in_one_fold_do_no_harm():
    vectors, labels = make_clusters(n=50)
    vectors[:, 0] = 3.0
    labels = labels.copy()
    labels[7] = 5  # the only image of its class
    features, folds = standardize_columns(vectors), draw_folds(labels, None, 5, 0)
    assert np.isfinite(features).all() and not features[:, 0].any()
    assert np.isfinite(cross_validate_ridge(features, labels, folds).scores).all()
    assert cross_validate_centroids(normalize_rows(vectors), labels, folds)[7] != 5
