"""Extrapolate a forecast accuracy to more training images, by the rehearsal's learning curve."""

import numpy as np
import pandas as pd

from foretune.forecast.rehearsal import RehearsalPoint

TIMES = (1, 2, 4, 8)
MIN_POINTS = 3
# Chosen on the twelve bundled tasks, so that the interval holds 95% of continued curves
# (benchmarks/forecast_error.md has how often it holds those of other tasks).
FASTEST_STEP, LEAST_EXPONENT, TEST_NOISE = 1.5, 0.05, 0.01


def measure_decay(
    curve: list[RehearsalPoint], least: int = MIN_POINTS
) -> tuple[float, float, float]:
    """Return the exponent of the probe's error as a power of the number of images, and its range.

    The error falls as n^-c (Hestness et al. 2017). Each pair of consecutive points has an exponent;
    c is the last one, since curves flatten. The range is from 0 to FASTEST_STEP times the largest,
    which counts as LEAST_EXPONENT at least. An error of 0 counts as half an image. NaN for fewer
    than `least` points.
    """
    if len(curve) < least:
        return np.nan, np.nan, np.nan
    n = np.array([point["n"] for point in curve], float)
    errors = np.maximum(1 - np.array([point["accuracy"] for point in curve]), 0.5 / n)
    exponents = np.maximum(-np.diff(np.log(errors)) / np.diff(np.log(n)), 0)
    fastest = FASTEST_STEP * max(float(exponents.max()), LEAST_EXPONENT)
    return float(exponents[-1]), 0.0, fastest


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
    rows = []
    for times in TIMES if np.isfinite(expected) else ():
        middle, low, high = (
            1 - (1 - accuracy) * times**-exponent for exponent in (expected, slowest, fastest)
        )
        noise = TEST_NOISE * (times > 1)
        rows.append(
            {"times": times, "n": times * n, "expected": middle, "low": max(low - noise, 0),
             "high": min(high + noise, 1)}
        )  # fmt: skip
    return pd.DataFrame(rows, columns=["times", "n", "expected", "low", "high"])
