"""The forecasters of an outcome: each chooses a candidate and says how far it is off.

The choice is made by the error of leaving one dataset out. The error that is shown is nested:
each dataset of the study is forecast by a choice and a fit that did not see it. Regressions are
fitted to the rows of all methods that train weights; a method that trains on cached embeddings is
fitted alone. For the other half of a half-done study, a model's dataset is left out instead
(forecast/other_models.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.stats import t as student

from foretune.core.config import trains_on_embeddings
from foretune.core.variants import parse_variant
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
    """The way in which an outcome is forecast.

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
class HoldOut:
    """Settings of the cross-validation: the groups to leave out, and the predictors to choose from.

    unit: columns that define the groups to leave out; candidates: those of an outcome;
    add_predictors: a function (rows, study, outcome) that adds the predictors of rows that come
    from the outcomes of `study`.
    """

    unit: tuple[str, ...]
    candidates: Callable[[str], Sequence[Candidate]]
    add_predictors: Callable[[pd.DataFrame, pd.DataFrame, str], pd.DataFrame] | None = None

    def prepare(self, rows: pd.DataFrame, study: pd.DataFrame, outcome: str) -> pd.DataFrame:
        """Return rows with all predictors."""
        return self.add_predictors(rows, study, outcome) if self.add_predictors else rows

    def split(self, study: pd.DataFrame) -> list[np.ndarray]:
        """Return the positions of the rows of each unit."""
        return list(study.groupby(list(self.unit)).indices.values())


DATASETS = HoldOut(("dataset",), lambda outcome: OUTCOME_KINDS[outcome].candidates)


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


def fit_forecasters(
    study: pd.DataFrame, outcome: str, hold_out: HoldOut = DATASETS
) -> dict[str, Forecaster]:
    """Choose and fit a candidate for an outcome of each method.

    Args:
        study: one row per (model, method, dataset), with the columns model, method, dataset, run,
            n_test, the outcome and the predictors. `run` names model and method. Rows without the
            outcome are left out, and so are candidates whose predictors some other rows lack.
        hold_out: what is left out to measure errors.

    Returns:
        The forecaster of each method for which MIN_DATASETS datasets have the outcome.
    """
    known = study[np.isfinite(study[outcome].astype(float))]
    known = known.astype({"run": object})  # pandas takes longer to read its own kind of texts
    counts = known.groupby("method").dataset.nunique()
    known = known[known.method.map(counts) >= MIN_DATASETS]
    pools = known.method.map({method: get_pool(method) for method in counts.index})
    forecasters: dict[str, Forecaster] = {}
    for _, pool in known.groupby(pools):
        forecasters |= fit_pool(pool.reset_index(drop=True), outcome, hold_out)
    return forecasters


def can_have_pilot(method: str) -> bool:
    """Return whether a method trains weights of the model, on more images than a few per class.

    The forecasts of these methods share what they learn, and a pilot may be one of its predictors.
    """
    return not trains_on_embeddings(method) and parse_variant(method).shots is None


def get_pool(method: str) -> str:
    """Return the name of the pool of methods that a method's forecasts learn from."""
    return "trained" if can_have_pilot(method) else method


def fit_pool(pool: pd.DataFrame, outcome: str, hold_out: HoldOut) -> dict[str, Forecaster]:
    """Return the forecaster of each method of a pool of rows, see `fit_forecasters`."""
    scale = OUTCOME_KINDS[outcome].scale
    pool = hold_out.prepare(pool, pool, outcome)
    candidates = [
        candidate
        for candidate in hold_out.candidates(outcome)
        if all(name in pool and pool[name].notna().all() for name in candidate.predictors)
    ]
    forecasts = predict_units(candidates, pool, outcome, hold_out)
    left_out = np.empty(len(pool))
    for unit_rows in hold_out.split(pool):
        rest = pool.drop(index=unit_rows).reset_index(drop=True)
        others = hold_out.prepare(rest, rest, outcome)
        unit = hold_out.prepare(pool.iloc[unit_rows], rest, outcome)
        inner = predict_units(candidates, others, outcome, hold_out)
        choices, _ = choose_candidates(candidates, others, outcome, inner)
        for method in set(unit.method):
            choice, of_method = choices.get(method, MEAN), (unit.method == method).to_numpy()
            left_out[unit_rows[of_method]] = predict(choice, others, outcome, unit[of_method])
        if hold_out.add_predictors:  # the shortcut keeps the unit's outcome in others' predictors
            for number, candidate in enumerate(candidates):
                forecasts[number, unit_rows] = predict(candidate, others, outcome, unit)
    chosen, errors = choose_candidates(candidates, pool, outcome, forecasts)
    left_out = np.clip(left_out, scale.low, scale.high)
    return {
        method: Forecaster(
            outcome, pool, pool.iloc[rows].reset_index(drop=True), chosen[method], errors[method],
            left_out[rows],
        )
        for method, rows in pool.groupby("method").indices.items()
    }  # fmt: skip


def predict_units(
    candidates: list[Candidate], pool: pd.DataFrame, outcome: str, hold_out: HoldOut
) -> np.ndarray:
    """Return the forecasts (K, N) of candidates, each row's from a fit without its unit."""
    units = hold_out.split(pool)
    return np.array([predict_left_out(candidate, pool, outcome, units) for candidate in candidates])


def choose_candidates(
    candidates: list[Candidate], pool: pd.DataFrame, outcome: str, forecasts: np.ndarray
) -> tuple[dict[str, Candidate], dict[str, dict[Candidate, float]]]:
    """Choose a candidate for each method by its error.

    Args:
        forecasts: (K, N), from `predict_units`.

    Returns:
        The candidate of each method, and the mean absolute error of each candidate for it.
    """
    kind, y = OUTCOME_KINDS[outcome], pool[outcome].to_numpy(float)
    misses = np.abs(np.clip(forecasts, kind.scale.low, kind.scale.high) - y)
    datasets, methods = pool.dataset.to_numpy(object), pool.method.to_numpy(object)
    by_method = {
        method: average_by_dataset(misses[:, methods == method], datasets[methods == method])
        for method in sorted(set(methods))
    }
    errors = {
        method: dict(zip(candidates, means.mean(axis=0).tolist(), strict=True))
        for method, means in by_method.items()
    }
    if kind.per_method:
        choices = {method: choose_simplest(candidates, by_method[method]) for method in by_method}
        return choices, errors
    common = choose_simplest(candidates, average_by_dataset(misses, datasets))
    return dict.fromkeys(by_method, common), errors


def average_by_dataset(misses: np.ndarray, datasets: np.ndarray) -> np.ndarray:
    """Return the means (D, K) over each dataset's rows of the errors (K, N) of K candidates."""
    return np.array([misses[:, datasets == dataset].mean(axis=1) for dataset in set(datasets)])


def choose_simplest(candidates: list[Candidate], misses: np.ndarray) -> Candidate:
    """Return the simplest candidate whose error is not shown to be above the smallest.

    That is less than one standard error of their difference over datasets (Hastie, Tibshirani and
    Friedman 2009, section 7.10). The mean is the simplest of all, so that noise chooses it.

    misses: mean absolute errors (D, K), one row per dataset and one column per candidate.
    """
    errors = misses.mean(axis=0)
    beyond = misses - misses[:, [errors.argmin()]]
    allowed = beyond.std(axis=0, ddof=1) / np.sqrt(len(misses))
    close = np.flatnonzero(beyond.mean(axis=0) <= allowed)
    return candidates[min(close, key=lambda k: (candidates[k].complexity, errors[k]))]
