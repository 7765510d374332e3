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
    """The columns of a regression, and how to make the same columns for new rows."""

    candidate: Candidate
    centre: np.ndarray
    scale: np.ndarray
    runs: pd.Index

    @classmethod
    def learn(cls, candidate: Candidate, rows: pd.DataFrame) -> "Design":
        """Learn the scaling of the predictors, and the runs, from a study's rows."""
        values = read_columns(rows, candidate.predictors)
        deviation = values.std(axis=0)
        scale = np.where(deviation > 0, deviation, np.inf)
        runs = pd.Index(sorted(rows.run.unique()), dtype=object)
        return cls(candidate, values.mean(axis=0), scale, runs)

    def expand(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the columns (N, p): one, and the scaled predictors."""
        values = (read_columns(rows, self.candidate.predictors) - self.centre) / self.scale
        return np.hstack([np.ones((len(rows), 1)), values])

    def find_runs(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the position (N,) of each row's run, -1 for a new one."""
        return self.runs.get_indexer(pd.Index(rows.run, dtype=object))


@dataclass(frozen=True)
class Fit:
    """Ridge regressions: the slopes (U, p) of each, and the offset (U, runs + 1) of each run.

    The last offset, that of a new run, is 0.
    """

    slopes: np.ndarray
    offsets: np.ndarray

    def predict(self, x: np.ndarray, runs: np.ndarray, regressions: np.ndarray) -> np.ndarray:
        """Return forecasts (N,) of rows x (N, p), each by the regression of the given number."""
        return (x * self.slopes[regressions]).sum(axis=1) + self.offsets[regressions, runs]


def fit_without(design: Design, study: pd.DataFrame, outcome: str, units: np.ndarray) -> Fit:
    """Fit a regression for each unit, to the rows of all others, and a last one to all rows.

    Scaling, weights and penalties are those of all rows. Given the slopes, each run's offset is a
    shrunken mean of its residuals. So everything follows from sums over the rows of each run, from
    which those of a unit are subtracted, without a column for each of a large study's runs.

    units: the number (N,) of each row's unit.
    """
    x, runs, weights = design.expand(study), design.find_runs(study), weigh_tests(study)
    p, regressions = x.shape[1], units.max() + 2
    rows = np.column_stack([x, study[outcome].to_numpy(float), np.ones(len(x))])
    weighted = weights[:, None] * rows
    products, sums = (
        np.zeros((regressions, size, p + 2)) for size in (p + 2, len(design.runs) + 1)
    )
    np.add.at(products, units, weighted[:, :, None] * rows[:, None, :])
    np.add.at(sums, (units, runs), weighted)
    products, sums = products.sum(axis=0) - products, sums.sum(axis=0) - sums
    # A single run has no offset besides the constant.
    shrunk = (len(design.runs) > 1) / (OFFSET_PENALTY + sums[..., -1])
    products -= np.einsum("urp,urq,ur->upq", sums, sums, shrunk)
    penalties = np.diag([1e-9, *[SLOPE_PENALTY * len(x)] * (p - 1)])
    slopes = np.linalg.solve(products[:, :p, :p] + penalties, products[:, :p, p, None])[..., 0]
    return Fit(slopes, shrunk * (sums[..., p] - np.einsum("urp,up->ur", sums[..., :p], slopes)))


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
    fit = fit_without(design, study, outcome, np.zeros(len(study), int))
    return fit.predict(design.expand(new), design.find_runs(new), np.array(-1))


def predict_left_out(
    candidate: Candidate, study: pd.DataFrame, outcome: str, units: Sequence[np.ndarray]
) -> np.ndarray:
    """Return a candidate's forecast (N,) of each row from the rows of all other units.

    The scaling and the penalties of a regression are those of all rows.

    Args:
        units: the positions of the rows that are left out together, such as those of a dataset.
    """
    if candidate.itself:
        return read_columns(study, candidate.predictors).max(axis=1)
    design, unit_of = Design.learn(candidate, study), np.empty(len(study), int)
    for number, unit in enumerate(units):
        unit_of[unit] = number
    fit = fit_without(design, study, outcome, unit_of)
    return fit.predict(design.expand(study), design.find_runs(study), unit_of)
