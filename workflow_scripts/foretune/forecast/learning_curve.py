"""How a forecast accuracy would change with more training images, from the rehearsal's curve."""

import numpy as np
import pandas as pd

from foretune.forecast.rehearsal import RehearsalPoint

TIMES = (1, 2, 4, 8)
MIN_POINTS = 3


def measure_decay(
    curve: list[RehearsalPoint], least: int = MIN_POINTS
) -> tuple[float, float, float]:
    """Return the exponent of the probe's error as a power of the number of images, and its range.

    The error falls as n^-c (Hestness et al. 2017). Each pair of consecutive points has an exponent;
    c is the last one, since curves flatten, and the range is that of all, with 0 in it. An error
    of 0 counts as half an image. NaN for fewer than `least` points.
    """
    if len(curve) < least:
        return np.nan, np.nan, np.nan
    n = np.array([point["n"] for point in curve], float)
    errors = np.maximum(1 - np.array([point["accuracy"] for point in curve]), 0.5 / n)
    exponents = np.maximum(-np.diff(np.log(errors)) / np.diff(np.log(n)), 0)
    return float(exponents[-1]), 0.0, float(exponents.max())


def extrapolate(accuracy: float, curve: list[RehearsalPoint], n: int) -> pd.DataFrame:
    """Return the accuracies to expect of 1, 2, 4 and 8 times as many training images.

    The error of the fine-tuned model is taken to fall as the probe's does. The interval is that of
    the extrapolation: it tells nothing of how far `accuracy` itself may be off.

    Args:
        accuracy: the forecast for the n images that are there.
        curve: the rehearsal's.

    Returns:
        The columns times, n, expected, low and high; no rows if the curve is too short.
    """
    expected, slowest, fastest = measure_decay(curve)
    rows = [
        {
            "times": times, "n": times * n, "expected": 1 - (1 - accuracy) * times**-expected,
            "low": 1 - (1 - accuracy) * times**-slowest,
            "high": 1 - (1 - accuracy) * times**-fastest,
        }
        for times in TIMES
        if np.isfinite(expected)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["times", "n", "expected", "low", "high"])
