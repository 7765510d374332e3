"""The report's answers in words: what predicts an outcome, what to take, what findings come to.

A correlation is "shown" where its permutation p-value, corrected by Holm over the measures of one
model and method, is below 0.05. Everything else is said to be not shown.
"""

import numpy as np
import pandas as pd
from scipy import stats

from foretune.analysis.findings import PARTS, combine_verdicts, get_verdict, summarize_evidence
from foretune.analysis.formatting import (
    format_number,
    format_percent,
    format_plain,
    format_points,
    is_known,
)
from foretune.analysis.outcomes import GAIN

SIGNIFICANCE_LEVEL = 0.05
VOTE_PHRASES = ("for", "against", "open", "missing")
PREDICTED_PHRASES = {
    GAIN: "the gain",
    "accuracy": "the accuracy after fine-tuning",
    "ood_change": "forgetting (the change on other tasks)",
}


def format_interval(low: float, high: float) -> str:
    return (
        f"95% interval {format_number(low)} to {format_number(high)}"
        if is_known(low)
        else "no interval"
    )


def format_correlation(row: dict) -> str:
    """One correlation with all that it takes to judge it."""
    where = format_interval(row["spearman_low"], row["spearman_high"])
    return (
        f"Spearman’s ρ = {format_number(row['spearman'])} ({where}; permutation p = "
        f"{format_plain(row['p_permutation'])}, {format_plain(row['p_holm'])} after correction; "
        f"n = {format_plain(row['n'])})"
    )


def format_pairs(count: int, every: int) -> str:
    return f"{count} of {every} pair{'s' * (every != 1)} of model and method"


def predict_answer(statistics: pd.DataFrame, outcome: str) -> dict | None:
    """What predicts an outcome: a short answer and sentences that carry it; None if not tested."""
    tested = statistics[(statistics.outcome == outcome) & statistics.p_holm.notna()]
    if tested.empty:
        return None
    every = len(tested[["model", "method"]].drop_duplicates())
    shown = tested[tested.p_holm < SIGNIFICANCE_LEVEL]
    strongest = tested.loc[tested.spearman.abs().idxmax()].to_dict()
    example = (
        f"The strongest of all is {strongest['measure']} on {strongest['model']}, "
        f"{strongest['method']}: {format_correlation(strongest)}."
    )
    if shown.empty:
        answer = f"Not shown: no measure predicts {PREDICTED_PHRASES[outcome]} in any of the {every} pairs."
        if every == 1:
            answer = f"Not shown: no measure predicts {PREDICTED_PHRASES[outcome]}."
    else:
        counts = shown.groupby("measure").spearman.agg(["size", lambda rho: rho.abs().mean()])
        best, (count, _) = max(counts.iterrows(), key=lambda row: tuple(row[1]))
        count = int(count)
        rhos = shown[shown.measure == best].spearman
        span = format_number(rhos.min()) + (f" to {format_number(rhos.max())}" if count > 1 else "")
        clear = "" if 2 * count > every else "Not shown in general; at best "
        answer = f"{clear}{best}, in {format_pairs(count, every)} (ρ {span})."
        some = shown[["model", "method"]].drop_duplicates()
        example = (
            f"Some measure’s correlation is shown in {format_pairs(len(some), every)}. {example} "
            "A measure that is best of many here need not be best on other datasets."
        )
    said = [example]
    if outcome == "ood_change" and not shown.empty:
        said.append("A positive ρ means that less is forgotten where the measure is high.")
    own = tested[tested.measure == "iimm"]
    if not own.empty:
        low, high = format_number(own.spearman.min()), format_number(own.spearman.max())
        said.append(
            f"IIMM’s correlation is shown in {format_pairs(int((own.p_holm < SIGNIFICANCE_LEVEL).sum()), len(own))}; "
            f"its ρ is {low}{f' to {high}' if len(own) > 1 else ''}."
        )
    return {
        "question": f"What predicts {PREDICTED_PHRASES[outcome]}?",
        "answer": answer,
        "said": said,
    }


def best_run(tasks: pd.DataFrame, column: str) -> dict | None:
    """The (model, method) with the best mean over the datasets that all have, and its lead.

    lead, low, high: the mean of the paired differences to the second over the datasets, with its
    t interval; they are absent where there is no second or there are fewer than 3 datasets.
    """
    wide = tasks.pivot(index="dataset", columns=["model", "method"], values=column).astype(float)
    wide = wide.dropna(axis=1, how="all").dropna()
    if wide.empty:
        return None
    order = wide.mean().sort_values(ascending=False, kind="stable")
    found = {"run": order.index[0], "mean": order.iloc[0], "n": len(wide), "of": len(order)}
    if len(order) > 1:
        by = wide[order.index[0]] - wide[order.index[1]]
        found |= {"second": order.index[1], "lead": by.mean()}
        if len(by) > 2 and np.ptp(by) > 0:
            low, high = stats.ttest_1samp(by, 0).confidence_interval()
            found |= {"low": low, "high": high}
    return found


def take_answer(tasks: pd.DataFrame) -> dict | None:
    """Which model and method to take, by the study's means."""
    balance = (tasks[GAIN] + tasks.ood_change.astype(float)) / 2
    wishes = [
        ("accuracy", "the highest accuracy", format_percent, format_points, "points"),
        ("ood_change", "the least forgetting", format_points, format_points, "points"),
        ("balance", "both alike (the mean of gain and change)", format_number, format_number, ""),
    ]
    said = []
    for column, wish, show, show_lead, unit in wishes:
        found = best_run(tasks.assign(balance=balance), column)
        if found is None:
            continue
        text = f"For {wish}: {' on '.join(found['run'][::-1])}, {show(found['mean'])}"
        text += f" {unit}" * (show is format_points) + " on average"
        if "lead" in found:
            text += f", {show_lead(found['lead'])} {unit}".rstrip()
            text += f" over {' on '.join(found['second'][::-1])}"
            low = found.get("low")
            if low is None:
                text += " (too few datasets to tell whether it is better)"
            else:
                clear = "" if low > 0 else "; not shown to be better"
                span = f"{show_lead(low)} to {show_lead(found['high'])}"
                text += f" (95% interval {span}, n = {found['n']}{clear})"
        said.append(text + ".")
    if not said:
        return None
    top, answer = best_run(tasks, "accuracy"), "No dataset was tuned by all methods of all models."
    if top:
        answer = f"{top['run'][1]} on {top['run'][0]} has the highest mean test accuracy"
        answer += f", {format_percent(top['mean'])}."
    if tasks.ood_change.isna().all():
        said.append("No method was tested on other tasks: nothing is known of forgetting.")
    return {"question": "Which model and method?", "answer": answer, "said": said}


def overview_answers(tasks: pd.DataFrame, statistics: pd.DataFrame) -> list[dict]:
    """The overview's questions, each with a short answer and the sentences that carry it."""
    if tasks.empty:
        return []
    made = [predict_answer(statistics, outcome) for outcome in PREDICTED_PHRASES]
    return [answer for answer in [*made, take_answer(tasks)] if answer]


def finding_answers(evidence: pd.DataFrame) -> list[dict]:
    """The five findings: a verdict each, and for each part its claim, rule, verdict and figures."""
    found = []
    for finding in dict.fromkeys(number_of for number_of, _ in PARTS):
        parts = []
        for (number_of, part), (claim, rule) in PARTS.items():
            if number_of == finding:
                cells = evidence[(evidence.finding == finding) & (evidence.part == part)]
                figures = summarize_evidence(cells, part).removeprefix(f"{part}: ")
                parts.append({"part": part, "claim": claim, "rule": rule, "figures": figures,
                              "drawn": int(cells.estimate.notna().sum()),
                              "verdict": get_verdict(list(cells.vote))})  # fmt: skip
        verdict = combine_verdicts([part["verdict"] for part in parts])
        votes = evidence.vote[evidence.finding == finding].value_counts()
        said = [f"{votes[vote]} {vote}" for vote in VOTE_PHRASES if vote in votes]
        found.append({"finding": finding, "verdict": verdict, "parts": parts,
                      "votes": " · ".join(said) or "nothing to compare"})  # fmt: skip
    return found
