"""The overview's first answer: what can be forecast before fine-tuning, and how well."""

import pandas as pd

from foretune.analysis.formatting import format_plain
from foretune.analysis.pilots import PILOT_ACCURACY
from foretune.forecast.candidates import IIMM_LINE, MEAN, Candidate
from foretune.forecast.forecaster import MIN_DATASETS, Forecaster, fit_forecasters, get_pool
from foretune.forecast.rehearsal import PREDICTORS
from foretune.report.summary import Answer


def answer_how_well(tasks: pd.DataFrame) -> Answer | None:
    """Answer how far a forecast is off, for the method that most datasets and models have.

    Each dataset is forecast from the others. None if the study was not rehearsed, or has too few
    datasets.
    """
    if tasks.empty or not set(PREDICTORS) <= set(tasks):
        return None
    study = tasks.assign(run=tasks.model + "/" + tasks.method)
    tested = study[study.accuracy.notna()].groupby("method").dataset.agg(["size", "nunique"])
    tested = tested[tested["nunique"] >= MIN_DATASETS]
    if tested.empty:
        return None
    # Others of its pool have a part in its forecasts.
    pools = {name: get_pool(name) for name in study.method.unique()}
    method = max(sorted(tested.index, key=lambda name: (pools[name], name)),
                 key=lambda name: tested["size"][name])  # fmt: skip
    study = study[study.method.map(pools) == pools[method]]
    accuracy, change = (fit_forecasters(study, name) for name in ("accuracy", "ood_change"))
    forecaster = accuracy[method]
    sentences = [describe(forecaster, f"the accuracy of {method}")]
    if method in change:
        sentences.append(describe(change[method], f"what {method} forgets on other tasks"))
    sentences.append(
        "Each dataset was forecast from the others, by a choice and a fit that did not see it. "
        "All forecasts need labelled training images, but no fine-tuning."
    )
    better = forecaster.error < forecaster.errors.get(MEAN, 0)
    answer = f"To within {format_error_points(forecaster.error)} on average, before any fine-tuning"
    answer += (
        f"; the study’s mean misses by {format_error_points(forecaster.errors[MEAN])}."
        if better
        else ", which is no better than the study’s mean."
    )
    return {
        "question": "How well is the accuracy after fine-tuning known beforehand?",
        "answer": answer,
        "sentences": sentences,
    }


def describe(forecaster: Forecaster, subject: str) -> str:
    """Return a sentence on what forecasts an outcome, and on the errors of it and of baselines."""
    return (
        f"What forecasts {subject}: {name_candidate(forecaster.chosen)}. Its mean error is "
        f"{format_error_points(forecaster.error)}; the study’s mean has "
        f"{format_error_points(forecaster.errors[MEAN])}"
        + (
            f" and the line on IIMM {format_error_points(forecaster.errors[IIMM_LINE])}"
            if IIMM_LINE in forecaster.errors
            else ""
        )
        + f" (n = {format_plain(forecaster.n)} datasets)."
    )


def name_candidate(candidate: Candidate) -> str:
    """Return a candidate in words."""
    if not candidate.predictors:
        return "the mean of the study"
    words = PREDICTORS | {PILOT_ACCURACY: "accuracy of a pilot, a few steps of fine-tuning"}
    names = [words.get(name, name.upper()) for name in candidate.predictors]
    text = ", and ".join(names)
    if candidate.itself and len(names) > 1:
        return f"the larger of the {text}"
    return f"the {text}" if candidate.itself else f"a regression on the {text}"


def format_error_points(error: float) -> str:
    """Return an error as percentage points."""
    return f"{100 * error:.1f} points"
