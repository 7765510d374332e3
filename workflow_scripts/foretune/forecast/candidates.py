"""Candidates for a forecast: ways to predict an outcome from what is known without fine-tuning.

A candidate is the study's mean, a predictor itself, or a ridge regression on one or two
predictors. All runs (a model with a method) share a regression's slopes, and each has an offset of
its own that is shrunk towards zero. A study of few datasets can then tell the slopes, and the
regression turns into the mean if the predictors tell nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from foretune.analysis.pilots import PILOT_ACCURACY

SLOPE_PENALTY = 0.1  # as a share of the number of rows, for predictors of variance 1
OFFSET_PENALTY = 1.0  # as much as one row that has no offset
# Deviation of an outcome from its forecast, in accuracy, that weights assume besides test noise.
MODEL_ERROR = 0.05


@dataclass(frozen=True)
class Candidate:
    """A way to forecast an outcome.

    predictors: names of columns, none for the mean; itself: whether the largest predictor is the
    forecast, without a fit.
    """

    predictors: tuple[str, ...] = ()
    itself: bool = False

    def __str__(self) -> str:
        if not self.predictors:
            return "mean of the study"
        names = " and ".join(self.predictors)
        if self.itself and len(self.predictors) > 1:
            return f"largest of {names}"
        return f"{names} itself" if self.itself else f"line on {names}"

    @property
    def complexity(self) -> tuple[int, bool]:
        """Order of preference among candidates of about the same error, the simplest first.

        What needs no fit is as simple with two predictors as with one.
        """
        return (1, False) if self.itself else (len(self.predictors), bool(self.predictors))


MEAN = Candidate()
IIMM_LINE = Candidate(("iimm",))
PROBES = ("probe_accuracy", "hidden_probe_accuracy")
# Candidates whose predictors a study lacks are left out; only some studies have pilots.
ACCURACY_CANDIDATES = (
    MEAN,
    *(Candidate((probe,), itself=True) for probe in PROBES),
    IIMM_LINE,
    *(Candidate((name,)) for name in ("train_zero_shot_accuracy", "knn_accuracy", *PROBES)),
    *(Candidate((probe, other)) for probe in PROBES
      for other in ("train_zero_shot_accuracy", "centroid_accuracy")),
    # A pilot learns some of what the encoder's features lack, and a probe shows what more steps
    # reach. It is better on some tasks only (docs/forecasting.md).
    *(Candidate((probe, PILOT_ACCURACY), itself=True) for probe in PROBES),
    Candidate((PILOT_ACCURACY,), itself=True), Candidate((PILOT_ACCURACY,)),
    *(Candidate((PILOT_ACCURACY, probe)) for probe in PROBES),
)  # fmt: skip
CHANGE_CANDIDATES = (
    MEAN,
    IIMM_LINE,
    *(Candidate((name,)) for name in ("train_zero_shot_accuracy", "hidden_probe_gain", *PROBES)),
    *(Candidate((name, "train_zero_shot_accuracy")) for name in ("iimm", "knn_accuracy", *PROBES)),
    Candidate((PILOT_ACCURACY,)),
    Candidate((PILOT_ACCURACY, "train_zero_shot_accuracy")),
)


@dataclass(frozen=True)
class Design:
    """The design matrix of a regression, and how to make the same columns for new rows."""

    candidate: Candidate
    centre: np.ndarray
    scale: np.ndarray
    runs: list[str]

    @classmethod
    def learn(cls, candidate: Candidate, rows: pd.DataFrame) -> "Design":
        """Learn the scaling of the predictors, and the runs, from a study's rows."""
        values = read_columns(rows, candidate.predictors)
        deviation = values.std(axis=0)
        scale = np.where(deviation > 0, deviation, np.inf)
        runs = sorted(set(rows.run))
        return cls(candidate, values.mean(axis=0), scale, runs if len(runs) > 1 else [])

    def expand(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the columns (N, p): one, the scaled predictors, an indicator per run."""
        values = (read_columns(rows, self.candidate.predictors) - self.centre) / self.scale
        offsets = rows.run.to_numpy(object)[:, None] == np.array(self.runs, object)
        return np.hstack([np.ones((len(rows), 1)), values, offsets])

    def make_penalties(self, n: int) -> np.ndarray:
        """Return the ridge penalty (p,) of each column for n rows."""
        slopes, offsets = len(self.candidate.predictors), len(self.runs)
        return np.array([1e-9, *[SLOPE_PENALTY * n] * slopes, *[OFFSET_PENALTY] * offsets])


def read_columns(rows: pd.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    """Return columns of a table as a matrix (N, p) of float64."""
    columns = [rows[name].to_numpy(float) for name in names]
    return np.array(columns).reshape(len(names), len(rows)).T


def weigh_tests(rows: pd.DataFrame) -> np.ndarray:
    """Return the weight (N,) of each row, with mean 1: small tests are noisy and count less.

    A test of unknown size, as in outcomes from elsewhere, counts as one of median size.
    """
    sizes = rows.n_test.to_numpy(float, na_value=np.nan, copy=True)
    unknown = np.isnan(sizes)
    sizes[unknown] = np.inf if unknown.all() else np.median(sizes[~unknown])
    weights = 1 / (MODEL_ERROR**2 + 0.25 / sizes)
    return weights / weights.mean()


def predict(
    candidate: Candidate, study: pd.DataFrame, outcome: str, new: pd.DataFrame
) -> np.ndarray:
    """Return a candidate's forecasts (M,) of an outcome for the rows `new`.

    Args:
        study: rows with a known outcome, with the columns run, n_test, the outcome, and the
            candidate's predictors.
    """
    if candidate.itself:
        return read_columns(new, candidate.predictors).max(axis=1)
    design = Design.learn(candidate, study)
    x, weights = design.expand(study), weigh_tests(study)
    scatter = x.T @ (weights[:, None] * x) + np.diag(design.make_penalties(len(x)))
    slopes = np.linalg.solve(scatter, x.T @ (weights * study[outcome].to_numpy(float)))
    return design.expand(new) @ slopes


def predict_left_out(
    candidate: Candidate, study: pd.DataFrame, outcome: str, units: Sequence[np.ndarray]
) -> np.ndarray:
    """Return a candidate's forecast (N,) of each row from the rows of all other units.

    For a regression, the residuals of a left-out unit B follow from the fit to all rows as
    (1 - H_BB)^-1 (y - H y)_B, where H is the hat matrix. Scaling and penalties are those of all
    rows.

    Args:
        units: the positions of the rows that are left out together, such as those of a dataset.
    """
    if candidate.itself:
        return read_columns(study, candidate.predictors).max(axis=1)
    design = Design.learn(candidate, study)
    x, weights, y = design.expand(study), weigh_tests(study), study[outcome].to_numpy(float)
    scatter = x.T @ (weights[:, None] * x) + np.diag(design.make_penalties(len(x)))
    hat = x @ np.linalg.solve(scatter, (weights[:, None] * x).T)
    residuals, left_out = y - hat @ y, np.empty(len(y))
    for size in {len(rows) for rows in units}:
        rows = np.array([unit for unit in units if len(unit) == size])  # all of one size at once
        blocks = np.eye(size) - hat[rows[:, :, None], rows[:, None, :]]
        left_out[rows] = y[rows] - np.linalg.solve(blocks, residuals[rows][:, :, None])[:, :, 0]
    return left_out
