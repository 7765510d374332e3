"""Answer the report's questions in words: what predicts an outcome, which run is best, findings.

A correlation counts as "shown" if its permutation p-value, corrected by Holm's method over the
measures of one model and method, is below 0.05. The answers call everything else "not shown".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from scipy import stats

from foretune.analysis.findings import (
    PARTS,
    VOTES,
    combine_verdicts,
    get_verdict,
    summarize_evidence,
)
from foretune.analysis.formatting import (
    format_number,
    format_percent,
    format_plain,
    format_points,
    is_known,
)
from foretune.analysis.outcomes import GAIN

Formatter = Callable[[float | None], str]

SIGNIFICANCE_LEVEL = 0.05

PREDICTED_OUTCOMES = {
    GAIN: "the gain",
    "accuracy": "the accuracy after fine-tuning",
    "ood_change": "forgetting (the change on other tasks)",
}


class Answer(TypedDict):
    """A question of the overview, its short answer, and the sentences that support the answer."""

    question: str
    answer: str
    sentences: list[str]


@dataclass
class BestRun:
    """The (model, method) with the highest mean, and its lead over the second.

    `lead` is the mean of the paired differences over the datasets, and `low` and `high` are the
    ends of its 95% t interval. The interval is None if there are fewer than 3 datasets or if the
    differences are all equal; the lead and the second are None if there is only one run.
    """

    run: tuple[str, str]
    mean: float
    n: int  # datasets
    second: tuple[str, str] | None = None
    lead: float | None = None
    interval: tuple[float, float] | None = None


def format_interval(low: float, high: float) -> str:
    """Return a 95% interval as text."""
    if not is_known(low):
        return "no interval"
    return f"95% interval {format_number(low)} to {format_number(high)}"


def format_correlation(row: dict) -> str:
    """Return a correlation with its interval, p-values and number of datasets.

    row: of the table `statistics`.
    """
    interval = format_interval(row["spearman_low"], row["spearman_high"])
    return (
        f"Spearman’s ρ = {format_number(row['spearman'])} ({interval}; permutation p = "
        f"{format_plain(row['p_permutation'])}, {format_plain(row['p_holm'])} after correction; "
        f"n = {format_plain(row['n'])})"
    )


def format_pairs(count: int, total: int) -> str:
    """Return "`count` of `total` pairs of model and method"."""
    return f"{count} of {total} pair{'s' * (total != 1)} of model and method"


def format_run(run: tuple[str, str]) -> str:
    """Return a (model, method) as "method on model"."""
    model, method = run
    return f"{method} on {model}"


def answer_what_predicts(statistics: pd.DataFrame, outcome: str) -> Answer | None:
    """Answer which measure predicts an outcome; None if no correlation with it was tested."""
    tested = statistics[(statistics.outcome == outcome) & statistics.p_holm.notna()]
    if tested.empty:
        return None
    shown = tested[tested.p_holm < SIGNIFICANCE_LEVEL]
    total = count_pairs(tested)
    strongest = tested.loc[tested.spearman.abs().idxmax()].to_dict()
    sentences = [
        f"The strongest correlation is that of {strongest['measure']} for {strongest['method']} "
        f"on {strongest['model']}: {format_correlation(strongest)}."
    ]
    if shown.empty:
        answer = f"Not shown: no measure predicts {PREDICTED_OUTCOMES[outcome]}"
        answer += f" for any of the {total} pairs of model and method." if total > 1 else "."
    else:
        answer = name_best_predictor(shown, total)
        sentences[0] = (
            "At least one measure’s correlation is shown for "
            f"{format_pairs(count_pairs(shown), total)}. {sentences[0]} The measure that does "
            "best on these datasets need not do best on others."
        )
        if outcome == "ood_change":
            sentences.append("A positive ρ means that a model forgets less if the measure is high.")
    iimm = tested[tested.measure == "iimm"]
    if not iimm.empty:
        count = int((iimm.p_holm < SIGNIFICANCE_LEVEL).sum())
        sentences.append(
            f"IIMM’s correlation is shown for {format_pairs(count, len(iimm))}; "
            f"its ρ is {format_range(iimm.spearman)}."
        )
    return {
        "question": f"What predicts {PREDICTED_OUTCOMES[outcome]}?",
        "answer": answer,
        "sentences": sentences,
    }


def count_pairs(rows: pd.DataFrame) -> int:
    """Return the number of different pairs of model and method."""
    return len(rows[["model", "method"]].drop_duplicates())


def format_range(values: pd.Series) -> str:
    """Return the lowest and the highest value as text, or the value if there is one only."""
    low = format_number(values.min())
    return f"{low} to {format_number(values.max())}" if len(values) > 1 else low


def name_best_predictor(shown: pd.DataFrame, total: int) -> str:
    """Return the measure whose correlation is shown for most of the `total` pairs, in words.

    Ties are broken by the mean of |ρ|.
    """
    counts = shown.groupby("measure").spearman.agg(["size", lambda rho: rho.abs().mean()])
    best, (count, _) = max(counts.iterrows(), key=lambda row: tuple(row[1]))
    count = int(count)
    prefix = "" if 2 * count > total else "Not shown in general; at best "
    rhos = shown[shown.measure == best].spearman
    return f"{prefix}{best}, for {format_pairs(count, total)} (ρ {format_range(rhos)})."


def find_best_run(tasks: pd.DataFrame, column: str) -> BestRun | None:
    """Return the (model, method) with the highest mean of `column`; None if there is none.

    The means are over the datasets for which all runs have a value. Runs without any value are
    left out.
    """
    wide = tasks.pivot(index="dataset", columns=["model", "method"], values=column).astype(float)
    wide = wide.dropna(axis=1, how="all").dropna()
    if wide.empty:
        return None
    order = wide.mean().sort_values(ascending=False, kind="stable")
    best = BestRun(order.index[0], order.iloc[0], len(wide))
    if len(order) > 1:
        best.second = order.index[1]
        differences = wide[best.run] - wide[best.second]
        best.lead = differences.mean()
        if len(differences) > 2 and np.ptp(differences) > 0:
            low, high = stats.ttest_1samp(differences, 0).confidence_interval()
            best.interval = low, high
    return best


def describe_best_run(
    best: BestRun, goal: str, show: Formatter, show_lead: Formatter, unit: str
) -> str:
    """Return a sentence about the best run for a goal; `show` and `show_lead` format values."""
    text = f"For {goal}: {format_run(best.run)}, {show(best.mean)}"
    text += f" {unit}" * (show is format_points) + " on average"
    if best.second is None:
        return text + "."
    text += f", {show_lead(best.lead)} {unit}".rstrip() + f" ahead of {format_run(best.second)}"
    if best.interval is None:
        return text + " (too few datasets to tell whether it is better)."
    low, high = best.interval
    verdict = "" if low > 0 else "; not shown to be better"
    interval = f"{show_lead(low)} to {show_lead(high)}"
    return f"{text} (95% interval {interval}, n = {best.n}{verdict})."


def answer_which_run(tasks: pd.DataFrame) -> Answer | None:
    """Answer which model and method to use, by means over the study's datasets."""
    balance = (tasks[GAIN] + tasks.ood_change.astype(float)) / 2
    goals: list[tuple[str, str, Formatter, Formatter, str]] = [
        ("accuracy", "the highest accuracy", format_percent, format_points, "points"),
        ("ood_change", "the least forgetting", format_points, format_points, "points"),
        ("balance", "a balance of both (the mean of gain and change on other tasks)",
         format_number, format_number, ""),
    ]  # fmt: skip
    sentences = []
    for column, goal, show, show_lead, unit in goals:
        best = find_best_run(tasks.assign(balance=balance), column)
        if best is not None:
            sentences.append(describe_best_run(best, goal, show, show_lead, unit))
    if not sentences:
        return None
    answer = "No dataset was used for fine-tuning by every method of every model."
    top = find_best_run(tasks, "accuracy")
    if top:
        answer = f"{format_run(top.run)} has the highest mean test accuracy"
        answer += f", {format_percent(top.mean)}."
    if tasks.ood_change.isna().all():
        sentences.append("No method was tested on other tasks, so forgetting is unknown.")
    return {"question": "Which model and method?", "answer": answer, "sentences": sentences}


def describe_fronts(front: pd.DataFrame) -> dict[str, str]:
    """Return per model which methods are on the front of gain and forgetting, in words.

    front: see `front.compute_front`. A point that is not on the front of the means is named if it
    is on that of at least 5% of the resamples.
    """
    texts: dict[str, str] = {}
    for model, points in front.sort_values("ood_change", ascending=False).groupby("model"):
        n = int(points.n.iloc[0])
        resampled = points.front_share.notna().all()

        def name_points(rows: pd.DataFrame, resampled: bool = resampled) -> str:
            names = rows.method.replace("zero_shot", "the zero-shot model")
            mixed = (rows.wise_ft > 0) & (rows.wise_ft < 1)
            names += (" with weight " + rows.wise_ft.map(format_plain)).where(mixed, "")
            if resampled:
                names += rows.front_share.map(lambda share: f" ({100 * share:.0f}%)")
            return ", ".join(names)

        over = f"{n} dataset{'s' * (n != 1)}"
        text = f"{model}: on the front of the means over {over} are "
        text += name_points(points[points.on_front])
        if resampled:
            others = points[~points.on_front]
            likely = others[others.front_share >= SIGNIFICANCE_LEVEL]
            text += "; in brackets, the share of resamples of the datasets in which they are on it."
            if len(likely):
                text += f" Not excluded: {name_points(likely)}."
            if len(others) > len(likely):
                rest = name_points(others.drop(likely.index))
                text += f" In more than 95% of the resamples, these are not on it: {rest}."
        else:
            text += ". So few datasets do not tell how certain that is."
        texts[str(model)] = text
    return texts


def make_overview_answers(tasks: pd.DataFrame, statistics: pd.DataFrame) -> list[Answer]:
    """Return the overview's questions with their answers; none if nothing was fine-tuned."""
    if tasks.empty:
        return []
    answers = [answer_what_predicts(statistics, outcome) for outcome in PREDICTED_OUTCOMES]
    return [answer for answer in [*answers, answer_which_run(tasks)] if answer]


def summarize_findings(evidence: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the papers' five findings, each with its verdict, its votes and its parts.

    A part has its claim, the rule of decision, a verdict, the figures in words, and the number of
    estimates that can be drawn.
    """
    findings: list[dict[str, Any]] = []
    for finding in dict.fromkeys(number for number, _ in PARTS):
        parts: list[dict[str, Any]] = []
        for (number, part), (claim, rule) in PARTS.items():
            if number == finding:
                cells = evidence[(evidence.finding == finding) & (evidence.part == part)]
                figures = summarize_evidence(cells, part).removeprefix(f"{part}: ")
                parts.append({"part": part, "claim": claim, "rule": rule, "figures": figures,
                              "drawn": int(cells.estimate.notna().sum()),
                              "verdict": get_verdict(list(cells.vote))})  # fmt: skip
        verdict = combine_verdicts([part["verdict"] for part in parts])
        counts = evidence.vote[evidence.finding == finding].value_counts()
        votes = [f"{counts[vote]} {vote}" for vote in VOTES if vote in counts]
        findings.append({"finding": finding, "verdict": verdict, "parts": parts,
                         "votes": " · ".join(votes) or "nothing to compare"})  # fmt: skip
    return findings
