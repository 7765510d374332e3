"""Probabilities of predictions, how well they are calibrated, and temperature scaling.

Source: Guo et al. 2017, On Calibration of Modern Neural Networks.
"""

import numpy as np
from scipy.optimize import minimize_scalar

# Limits of a fitted temperature.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.1, 10.0


def compute_probabilities(
    similarities: np.ndarray, labels: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of each predicted class, and the logarithm of each true one's, (N,).

    The logits are the similarities (N, C) times the scale.
    """
    # Relative to the largest, so that no exponential overflows.
    logits = scale * (similarities - similarities.max(axis=1, keepdims=True))
    log_sums = np.log(np.exp(logits).sum(axis=1))
    return np.exp(-log_sums), logits[np.arange(len(labels)), labels] - log_sums


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error of N predictions (Guo et al. 2017, equation 3).

    It is the mean distance between the confidence and the accuracy of the predictions in bins of
    equal width.

    Args:
        confidence: probability of the predicted class, (N,), between 0 and 1.
        correct: whether the prediction is right, (N,).
    """
    numbers = np.minimum((confidence * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(numbers, correct - confidence)).sum() / len(correct))


def fit_temperature(similarities, scale: float, labels) -> float:
    """Return the temperature that the logits are best divided by (Guo et al. 2017, section 4.2).

    It minimises the mean negative log-likelihood of the labels (N,), which has one minimum, between
    MIN_TEMPERATURE and MAX_TEMPERATURE. No prediction changes. Without any error, the likelihood
    grows the lower the temperature is, so that it tells none: it is 1.

    similarities, scale: as in `compute_probabilities`.
    """
    similarities, labels = np.asarray(similarities, float), np.asarray(labels)
    if (similarities.argmax(axis=1) == labels).all():
        return 1.0

    def loss(log_temperature: float) -> float:
        _, log_likelihood = compute_probabilities(
            similarities, labels, scale / np.exp(log_temperature)
        )
        return -log_likelihood.mean()

    bounds = np.log([MIN_TEMPERATURE, MAX_TEMPERATURE])
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))
