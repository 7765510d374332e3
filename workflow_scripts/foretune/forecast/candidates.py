"""Candidates for a forecast: ways to predict an outcome from what is known without fine-tuning.

A candidate is the study's mean, a predictor itself, or a ridge regression on one or two
predictors. All runs (a model with a method) share a regression's slopes, and each has an offset of
its own that is shrunk towards zero. A study of few datasets can then tell the slopes, and the
regression turns into the mean if the predictors tell nothing.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

SLOPE_PENALTY = 0.1  # as a share of the number of rows, for predictors of variance 1
OFFSET_PENALTY = 1.0  # as much as one row that has no offset
# Deviation of an outcome from its forecast, in accuracy, that weights assume besides test noise.
MODEL_ERROR = 0.05


@dataclass(frozen=True)
class Candidate:
    """A way to forecast an outcome.

    predictors: names of columns, none for the mean; itself: whether the only predictor is the
    forecast, without a fit.
    """

    predictors: tuple[str, ...] = ()
    itself: bool = False

    def __str__(self) -> str:
        if not self.predictors:
            return "mean of the study"
        names = " and ".join(self.predictors)
        return f"{names} itself" if self.itself else f"line on {names}"

    @property
    def complexity(self) -> tuple[int, bool]:
        """Order of preference among candidates of about the same error, the simplest first."""
        return len(self.predictors), not self.itself


MEAN = Candidate()
IIMM_LINE = Candidate(("iimm",))
PROBES = ("probe_accuracy", "hidden_probe_accuracy")
ACCURACY_CANDIDATES = (
    MEAN,
    *(Candidate((probe,), itself=True) for probe in PROBES),
    IIMM_LINE,
    *(Candidate((name,)) for name in ("train_zero_shot_accuracy", "knn_accuracy", *PROBES)),
    *(Candidate((probe, other)) for probe in PROBES
      for other in ("train_zero_shot_accuracy", "centroid_accuracy")),
)  # fmt: skip
CHANGE_CANDIDATES = (
    MEAN,
    IIMM_LINE,
    *(Candidate((name,)) for name in ("train_zero_shot_accuracy", "hidden_probe_gain", *PROBES)),
    *(Candidate((name, "train_zero_shot_accuracy")) for name in ("iimm", "knn_accuracy", *PROBES)),
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
    """Return the weight (N,) of each row, with mean 1: small tests are noisy and count less."""
    weights = 1 / (MODEL_ERROR**2 + 0.25 / rows.n_test.to_numpy(float))
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
        return new[candidate.predictors[0]].to_numpy(float)
    design = Design.learn(candidate, study)
    x, weights = design.expand(study), weigh_tests(study)
    scatter = x.T @ (weights[:, None] * x) + np.diag(design.make_penalties(len(x)))
    slopes = np.linalg.solve(scatter, x.T @ (weights * study[outcome].to_numpy(float)))
    return design.expand(new) @ slopes


def predict_left_out(candidate: Candidate, study: pd.DataFrame, outcome: str) -> np.ndarray:
    """Return a candidate's forecast (N,) of each row from the rows of all other datasets.

    For a regression, the residuals of a left-out dataset B follow from the fit to all rows as
    (1 - H_BB)^-1 (y - H y)_B, where H is the hat matrix. Scaling and penalties are those of all
    rows.
    """
    if candidate.itself:
        return study[candidate.predictors[0]].to_numpy(float)
    design = Design.learn(candidate, study)
    x, weights, y = design.expand(study), weigh_tests(study), study[outcome].to_numpy(float)
    scatter = x.T @ (weights[:, None] * x) + np.diag(design.make_penalties(len(x)))
    hat = x @ np.linalg.solve(scatter, (weights[:, None] * x).T)
    residuals, left_out = y - hat @ y, np.empty(len(y))
    datasets = study.dataset.to_numpy(object)
    for dataset in set(datasets):
        rows = np.flatnonzero(datasets == dataset)
        block = np.eye(len(rows)) - hat[np.ix_(rows, rows)]
        left_out[rows] = y[rows] - np.linalg.solve(block, residuals[rows])
    return left_out
