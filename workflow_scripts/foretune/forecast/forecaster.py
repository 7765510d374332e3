"""The forecasters of an outcome: each chooses a candidate and says how far it is off.

The choice is made by the error of leaving one dataset out. The error that is shown is nested:
each dataset of the study is forecast by a choice and a fit that did not see it. Regressions are
fitted to the rows of all methods that train weights; a method that trains on cached embeddings is
fitted alone.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.stats import t as student

from foretune.core.config import CACHED_METHODS
from foretune.forecast.candidates import (
    ACCURACY_CANDIDATES,
    CHANGE_CANDIDATES,
    MEAN,
    Candidate,
    predict,
    predict_left_out,
)

MIN_DATASETS = 4  # leaving one out leaves three, the least that tell a spread
# From this number on, a 95% interval can be read from the errors' quantiles alone.
ENOUGH_FOR_QUANTILES = 40
LEVEL = 0.95


@dataclass(frozen=True)
class Scale:
    """An outcome's range, and the scale on which its errors are taken to have equal spread.

    An accuracy's errors are measured between arcsin(sqrt(accuracy)), on which the binomial noise
    does not depend on the accuracy, so that an interval stays within 0 and 1.
    """

    low: float
    high: float
    arcsine: bool

    def transform(self, values: np.ndarray) -> np.ndarray:
        limited = np.clip(values, self.low, self.high)
        return np.arcsin(np.sqrt(limited)) if self.arcsine else limited

    def invert(self, values: np.ndarray) -> np.ndarray:
        if self.arcsine:
            return np.sin(np.clip(values, 0, np.pi / 2)) ** 2
        return np.clip(values, self.low, self.high)


@dataclass(frozen=True)
class OutcomeKind:
    """How an outcome is forecast.

    candidates: to choose from; scale: of its errors; per_method: whether each method has a choice
    of its own. What a method can train decides which probe it comes close to, but not what it
    forgets (benchmarks/forecast_error.md).
    """

    candidates: tuple[Candidate, ...]
    scale: Scale
    per_method: bool


OUTCOME_KINDS = {
    "accuracy": OutcomeKind(ACCURACY_CANDIDATES, Scale(0, 1, arcsine=True), per_method=True),
    "ood_change": OutcomeKind(CHANGE_CANDIDATES, Scale(-1, 1, arcsine=False), per_method=False),
    "shifted_change": OutcomeKind(CHANGE_CANDIDATES, Scale(-1, 1, arcsine=False), per_method=False),
}


@dataclass(frozen=True)
class Forecaster:
    """A fitted forecaster of one outcome for one method.

    Attributes:
        pool: the rows that regressions are fitted to, one per (model, method, dataset).
        study: those of the method.
        chosen: the candidate.
        errors: mean absolute error of each candidate, each dataset left out.
        left_out: the nested forecast of each row of `study`.
    """

    outcome: str
    pool: pd.DataFrame = field(repr=False)
    study: pd.DataFrame = field(repr=False)
    chosen: Candidate
    errors: dict[Candidate, float]
    left_out: np.ndarray = field(repr=False)

    @property
    def scale(self) -> Scale:
        return OUTCOME_KINDS[self.outcome].scale

    @property
    def n(self) -> int:
        """The number of datasets."""
        return self.study.dataset.nunique()

    @property
    def residuals(self) -> np.ndarray:
        """The outcome minus the nested forecast, for each row of `study`."""
        return self.study[self.outcome].to_numpy(float) - self.left_out

    @property
    def error(self) -> float:
        """The mean absolute nested error."""
        return float(np.abs(self.residuals).mean())

    def predict(self, new: pd.DataFrame) -> pd.DataFrame:
        """Return expected, low and high (the 95% interval) for each row of `new`."""
        expected = predict(self.chosen, self.pool, self.outcome, new)
        return self.add_interval(expected)

    def add_interval(self, expected: np.ndarray) -> pd.DataFrame:
        """Return expected, low and high for forecasts (M,)."""
        centre, reach = self.scale.transform(expected), self.measure_reach()
        return pd.DataFrame({
            "expected": np.clip(expected, self.scale.low, self.scale.high),
            "low": self.scale.invert(centre - reach),
            "high": self.scale.invert(centre + reach),
        })  # fmt: skip

    def measure_reach(self) -> float:
        """Return half the width of a 95% interval on the outcome's scale.

        With few datasets there is no distribution-free interval of 95%: the largest of twelve
        errors bounds the next one in 92% of cases. Then the root mean square of the nested errors
        is multiplied by Student's t. From ENOUGH_FOR_QUANTILES datasets on, it is the quantile of
        the absolute errors (the jackknife; Barber et al. 2021).
        """
        truth = self.scale.transform(self.study[self.outcome].to_numpy(float))
        errors = pd.Series(truth - self.scale.transform(self.left_out))
        if self.n >= ENOUGH_FOR_QUANTILES:
            return float(errors.abs().quantile(min(1, LEVEL * (1 + 1 / self.n))))
        spread = np.sqrt((errors**2).groupby(self.study.dataset.to_numpy()).mean().mean())
        return float(student.ppf((1 + LEVEL) / 2, self.n - 1) * spread * np.sqrt(1 + 1 / self.n))


def fit_forecasters(study: pd.DataFrame, outcome: str) -> dict[str, Forecaster]:
    """Choose and fit a candidate for an outcome of each method.

    Args:
        study: one row per (model, method, dataset), with the columns model, method, dataset, run,
            n_test, the outcome and the predictors. `run` names model and method. Rows without the
            outcome are left out, and so are candidates whose predictors some other rows lack.

    Returns:
        The forecaster of each method for which MIN_DATASETS datasets have the outcome.
    """
    known = study[np.isfinite(study[outcome].astype(float))]
    counts = known.groupby("method").dataset.nunique()
    known = known[known.method.map(counts) >= MIN_DATASETS]
    pools = known.method.where(known.method.isin(CACHED_METHODS), "trained")
    forecasters: dict[str, Forecaster] = {}
    for _, pool in known.groupby(pools):
        forecasters |= fit_pool(pool.reset_index(drop=True), outcome)
    return forecasters


def fit_pool(pool: pd.DataFrame, outcome: str) -> dict[str, Forecaster]:
    """Return the forecaster of each method of a pool of rows, see `fit_forecasters`."""
    kind = OUTCOME_KINDS[outcome]
    candidates = [
        candidate
        for candidate in kind.candidates
        if all(name in pool and pool[name].notna().all() for name in candidate.predictors)
    ]
    chosen, errors = choose_candidates(candidates, pool, outcome)
    left_out = np.empty(len(pool))
    for dataset_rows in pool.groupby("dataset").indices.values():
        others = pool.drop(index=dataset_rows).reset_index(drop=True)
        inner, _ = choose_candidates(candidates, others, outcome)
        for row in dataset_rows:
            choice = inner.get(pool.method[row], MEAN)
            left_out[row] = predict(choice, others, outcome, pool.iloc[[row]])[0]
    left_out = np.clip(left_out, kind.scale.low, kind.scale.high)
    return {
        method: Forecaster(
            outcome, pool, pool.iloc[rows].reset_index(drop=True), chosen[method], errors[method],
            left_out[rows],
        )
        for method, rows in pool.groupby("method").indices.items()
    }  # fmt: skip


def choose_candidates(
    candidates: list[Candidate], pool: pd.DataFrame, outcome: str
) -> tuple[dict[str, Candidate], dict[str, dict[Candidate, float]]]:
    """Choose a candidate for each method by its error when one dataset is left out.

    Returns:
        The candidate of each method, and the mean absolute error of each candidate for it.
    """
    kind, y = OUTCOME_KINDS[outcome], pool[outcome].to_numpy(float)
    misses = pd.DataFrame({
        candidate: np.abs(
            np.clip(predict_left_out(candidate, pool, outcome), kind.scale.low, kind.scale.high) - y
        )
        for candidate in candidates
    })  # fmt: skip
    by_method = {
        method: misses.iloc[rows].groupby(pool.dataset.to_numpy()[rows]).mean()
        for method, rows in pool.groupby("method").indices.items()
    }
    errors = {method: means.mean().to_dict() for method, means in by_method.items()}
    if kind.per_method:
        return {method: choose_simplest(means) for method, means in by_method.items()}, errors
    common = choose_simplest(misses.groupby(pool.dataset.to_numpy()).mean())
    return dict.fromkeys(by_method, common), errors


def choose_simplest(misses: pd.DataFrame) -> Candidate:
    """Return the simplest candidate whose error is not shown to be above the smallest.

    That is less than one standard error of their difference over datasets (Hastie, Tibshirani and
    Friedman 2009, section 7.10). The mean is the simplest of all, so that noise chooses it.

    misses: mean absolute errors, one row per dataset and one column per candidate.
    """
    errors = misses.mean()
    best = errors.idxmin()
    for candidate in sorted(misses, key=lambda each: (each.complexity, errors[each])):
        difference = misses[candidate] - misses[best]
        if difference.mean() <= difference.std() / np.sqrt(len(difference)):
            return candidate
    return best
