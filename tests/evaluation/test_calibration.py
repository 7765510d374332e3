"""Confidences and calibration, against scikit-learn and the definition of Guo et al. (2017)."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss

from foretune.evaluation.calibration import (
    MAX_TEMPERATURE,
    calibration_error,
    fit_temperature,
)
from foretune.evaluation.scores import score_predictions, write_predictions

MANIFEST = {"name": "pets", "split": "test", "classes": list("abcde"), "test_digest": "d"}


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("scale", [1.0, 5.0, 1e4])
def test_predictions_keep_the_probabilities_of_the_predicted_and_of_the_true_class(scale, tmp_path):
    rng = np.random.default_rng(0)
    cosines, labels = rng.uniform(-1, 1, (300, 5)), rng.integers(0, 5, 300)
    path = tmp_path / "kept.parquet"
    write_predictions(path, list(map(str, range(300))), labels, cosines, scale, "pets")
    kept, probabilities = pd.read_parquet(path), softmax(scale * cosines)
    assert (kept.predicted == probabilities.argmax(axis=1)).all()
    order = np.argsort(-cosines, axis=1)
    assert (order[np.arange(300), kept["rank"]] == labels).all()
    assert kept.confidence.to_numpy() == pytest.approx(probabilities.max(axis=1), rel=1e-5)
    outcome = score_predictions("a", "full", "pets", 1.0, MANIFEST, path).outcome
    if scale < 100:  # otherwise a probability of 0 has no logarithm for scikit-learn
        assert outcome["nll"] == pytest.approx(log_loss(labels, probabilities), rel=1e-5)
    assert np.isfinite(outcome["nll"]) and 0 <= outcome["ece"] <= 1


def test_calibration_error_by_its_definition():
    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.uniform(0.2, 1, 1000), [1.0, 1.0, 0.0]])
    correct = rng.uniform(size=len(confidence)) < confidence**2
    expected = 0.0
    for low in np.arange(15) / 15:
        last = low > 0.9
        chosen = (confidence >= low) & ((confidence < low + 1 / 15) | last)
        if chosen.any():
            gap = abs(correct[chosen].mean() - confidence[chosen].mean())
            expected += chosen.mean() * gap
    assert calibration_error(confidence, correct) == pytest.approx(expected, abs=1e-9)
    assert calibration_error(np.ones(4), np.ones(4, bool)) == 0
    assert calibration_error(np.ones(4), np.zeros(4, bool)) == 1


def test_accuracy_in_the_top_five_needs_five_classes(tmp_path):
    cosines = np.arange(12.0).reshape(2, 6)  # the last class is predicted, and the first is sixth
    write_predictions(tmp_path / "kept.parquet", ["a", "b"], [0, 1], cosines, 1.0, "pets")
    for classes, expected in (("abcdef", 0.5), ("abcd", None)):
        manifest = MANIFEST | {"classes": list(classes)}
        scores = score_predictions("a", "full", "pets", 1.0, manifest, tmp_path / "kept.parquet")
        assert scores.outcome["accuracy_top5"] == expected


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_fitted_temperature_is_that_of_the_labels_distribution(temperature):
    rng = np.random.default_rng(0)
    cosines = rng.normal(size=(20_000, 6)).astype(np.float32)
    chances = softmax(4.0 * cosines / temperature)
    labels = (chances.cumsum(axis=1) < rng.uniform(size=(20_000, 1))).sum(axis=1)
    fitted = fit_temperature(cosines, 4.0, labels)
    assert fitted == pytest.approx(temperature, rel=0.03)
    losses = [log_loss(labels, softmax(4.0 * cosines / (fitted * f))) for f in (0.99, 1, 1.01)]
    assert losses[1] == min(losses)


def test_labels_without_any_error_tell_no_temperature():
    cosines = np.eye(4)
    assert fit_temperature(cosines, 1.0, range(4)) == 1
    assert fit_temperature(cosines, 1e4, [1, 2, 3, 0]) == pytest.approx(MAX_TEMPERATURE, rel=1e-2)


def test_a_temperature_scales_the_probabilities_and_no_prediction(tmp_path):
    rng = np.random.default_rng(0)
    cosines, labels = rng.uniform(-1, 1, (300, 5)), rng.integers(0, 5, 300)
    path = tmp_path / "kept.parquet"
    write_predictions(path, list(map(str, range(300))), labels, cosines, 8.0, "pets", 4.0)
    outcome = score_predictions("a", "full", "pets", 1.0, MANIFEST, path).outcome
    for suffix, scale in (("", 8.0), ("_scaled", 2.0)):
        chances = softmax(scale * cosines)
        assert outcome[f"nll{suffix}"] == pytest.approx(log_loss(labels, chances), rel=1e-5)
        correct = chances.argmax(axis=1) == labels
        expected = calibration_error(chances.max(axis=1), correct)
        assert outcome[f"ece{suffix}"] == pytest.approx(expected, abs=1e-6)
    assert outcome["temperature"] == 4.0
