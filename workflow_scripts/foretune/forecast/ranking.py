"""The ranking of models and methods for a dataset by their forecasts."""

import numpy as np
import pandas as pd
from scipy.stats import t as student

from foretune.forecast.forecaster import LEVEL, MIN_DATASETS, Forecaster

RANKING_COLUMNS = [
    "dataset", "rank", "model", "method", "weight", "score", "accuracy", "ood_change", "behind",
    "behind_low", "behind_high", "note",
]  # fmt: skip
NOT_RANKED = "not ranked, because a part of its score is not known"


def rank_runs(
    forecasts: pd.DataFrame, weight: float, forecasters: dict[str, dict[str, Forecaster]]
) -> pd.DataFrame:
    """Return the models and methods of one dataset, the best first.

    score = (1 - weight) accuracy + weight ood_change of the expected values: points of accuracy
    against points forgotten. Accuracies are compared and not gains, because a weak model with
    large errors has much to gain. A run comes last, without a rank, if a part of its score that
    has a weight is unknown: a probe has no head for other tasks' classes.

    `behind` is how far the score is below the first one's. Its 95% interval comes from the nested
    errors of both runs on the same datasets of the study, so that an error that they share does
    not count.

    Args:
        forecasts: of one dataset.
        forecasters: by outcome and method.
    """
    key = ["dataset", "model", "method"]
    wide = forecasts.pivot(index=key, columns="outcome", values="expected")
    wide = wide.reindex(columns=["accuracy", "ood_change"]).reset_index()
    shares = {name: s for name, s in (("accuracy", 1 - weight), ("ood_change", weight)) if s}
    wide["score"] = sum(share * wide[name] for name, share in shares.items())
    wide["rank"] = wide.score.rank(ascending=False, method="min").astype("Int64")
    wide["note"] = np.where(wide.score.isna(), NOT_RANKED, "")
    wide = wide.assign(weight=float(weight)).sort_values(["rank", "model", "method"])
    measured = set(forecasts.loc[forecasts.measured, "method"])
    first = wide.iloc[0]
    errors = {
        run: collect_errors(*run, shares, forecasters, measured)
        for run in zip(wide.model, wide.method, strict=True)
    }
    wide["behind"] = first.score - wide.score
    reach = [
        measure_reach(errors[first.model, first.method], errors[run])
        for run in zip(wide.model, wide.method, strict=True)
    ]
    wide["behind_low"], wide["behind_high"] = wide.behind - reach, wide.behind + reach
    return wide.reset_index(drop=True)[RANKING_COLUMNS]


def collect_errors(
    model: str, method: str, shares: dict[str, float],
    forecasters: dict[str, dict[str, Forecaster]], measured: set[str],
) -> pd.Series:  # fmt: skip
    """Return the nested errors of a run's score, by dataset of the study.

    A measured accuracy has no error of a forecast.
    """
    total = pd.Series(dtype=float)
    for outcome, share in shares.items():
        forecaster = forecasters.get(outcome, {}).get(method)
        if forecaster is None:
            return pd.Series(dtype=float)
        rows = forecaster.study.model == model
        errors = pd.Series(
            forecaster.residuals[rows.to_numpy()], forecaster.study.dataset[rows].to_numpy()
        )
        if outcome == "accuracy" and method in measured:
            errors[:] = 0
        total = share * errors if total.empty else total + share * errors
    return total.dropna()


def measure_reach(first: pd.Series, other: pd.Series) -> float:
    """Return half the width of the 95% interval of the difference between two scores.

    first, other: the nested errors of the two runs, by dataset; NaN if too few are common.
    """
    difference = (first - other).dropna()
    n = len(difference)
    if n < MIN_DATASETS:
        return np.nan
    spread = float(np.sqrt((difference**2).mean()))
    return float(student.ppf((1 + LEVEL) / 2, n - 1) * spread * np.sqrt(1 + 1 / n))
