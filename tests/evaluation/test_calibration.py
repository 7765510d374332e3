"""Confidences and calibration, against scikit-learn and the definition of Guo et al. (2017)."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss

from foretune.evaluation.scores import calibration_error, score_predictions, write_predictions

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
