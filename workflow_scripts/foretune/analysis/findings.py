"""The five findings of the two papers, each confirmed, refuted or undecided by a study.

The parts of a finding are claims. Each claim is tested in cells (one per model, pair of methods,
...). A cell votes for the claim if its 95% interval lies on the claim's side of 0, and against it
if the interval lies on the other side; otherwise it is open. With too few datasets it is missing.

A part is confirmed if more than half of its votes are for it and none is against it, refuted if
more than half are against it, and undecided otherwise. A finding is confirmed if all of its parts
are, refuted if one is, and undecided otherwise. The intervals are not corrected for multiple
comparisons.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from foretune.analysis.formatting import format_number, is_known
from foretune.analysis.outcomes import GAIN
from foretune.analysis.paper_tables import get_model_family
from foretune.analysis.rank_correlation import correlate, percentile_interval
from foretune.core.config import HEAD_METHODS
from foretune.core.variants import get_base_method

RIVALS = ("emms", "ncti", "sfda", "transrate")
MIN_PAIRED_DATASETS = 4  # of a paired comparison
CLEAR_AICC_DIFFERENCE = 2  # smaller differences of AICc leave a cell open
VOTES = ("for", "against", "open", "missing")


class Claim(NamedTuple):
    """One part of a finding, and the rule by which its cells vote."""

    claim: str
    rule: str


# (finding, part) -> claim.
PARTS = {
    (1, "a"): Claim(
        "IIMM correlates with gain more strongly than EMMS, NCTI, SFDA and TransRate do",
        "for each model and each of these rivals, Spearman's rho of IIMM with gain minus the "
        "rival's, under full fine-tuning. A cell votes for the claim if the bootstrap interval of "
        "the difference is above 0",
    ),
    (2, "a"): Claim(
        "gain rises with IIMM",
        "for each model, the slope of the line of gain on IIMM under full fine-tuning. A cell "
        "votes for the claim if the slope's interval is above 0",
    ),
    (2, "b"): Claim(
        "gain is flat above an upper threshold of IIMM",
        "for each model, the AICc of the hinge minus the AICc of the line, under full fine-tuning. "
        f"A cell votes for the claim if the difference is at most -{CLEAR_AICC_DIFFERENCE} and the "
        f"hinge rises, and against it if the difference is at least {CLEAR_AICC_DIFFERENCE} and "
        "the interval of the line's slope is above 0",
    ),
    (3, "a"): Claim(
        "ood_change falls with IIMM (for all base models except CLIP)",
        "for each model except CLIP, the slope of the line of ood_change on IIMM under full "
        "fine-tuning. A cell votes for the claim if the slope's interval is below 0",
    ),
    (4, "a"): Claim(
        "LoRA and BitFit forget most where IIMM is high",
        "for each model, the mean difference of ood_change between LoRA or BitFit and each other "
        "method except the probes, over the datasets whose IIMM is at or above the model's "
        "median. A cell votes for the claim if the paired t interval is below 0",
    ),
    (4, "b"): Claim(
        "CLIP-Adapter gains least",
        "for each model, the mean difference of gain between CLIP-Adapter and each other method "
        "except the probes. A cell votes for the claim if the paired t interval is below 0",
    ),
    (4, "c"): Claim(
        "CLIP-Adapter forgets least",
        "for each model, the mean difference of ood_change between CLIP-Adapter and each other "
        "method except the probes. A cell votes for the claim if the paired t interval is "
        "above 0",
    ),
    (5, "a"): Claim(
        "the silhouette score measures task difficulty better than the mean cosine similarity of "
        "correct pairs",
        "for each model, |rho| of silhouette_cosine with the zero-shot error minus |rho| of "
        "correct_label_alignment. A cell votes for the claim if the bootstrap interval of the "
        "difference is above 0",
    ),
    (5, "b"): Claim(
        "tuning the input projections of attention (A-CLIP) balances domain generalisation and "
        "forgetting",
        "for each model, the mean difference of the average of shifted_change and ood_change "
        "between A-CLIP and each other method except the probes. A cell votes for the claim "
        "if the paired t interval is above 0",
    ),
}
EVIDENCE_COLUMNS = ["finding", "part", "model", "cell", "n", "estimate", "low", "high", "vote"]
FINDING_COLUMNS = ["finding", "claim", "verdict", "parts", *VOTES, "evidence", "rule"]


def get_vote(low: float, high: float, sign: int = 1) -> str:
    """Return the vote of an interval on the claim that the estimate is above 0.

    With sign -1 the claim is that the estimate is below 0.
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        return "missing"
    low, high = sorted((sign * low, sign * high))
    return "for" if low > 0 else "against" if high < 0 else "open"


def get_verdict(votes: list[str]) -> str:
    """Return the verdict on one part from the votes of its cells; see the module's docstring."""
    cast = [vote for vote in votes if vote != "missing"]
    half = len(cast) / 2
    if cast.count("for") > half and "against" not in cast:
        return "confirmed"
    return "refuted" if cast.count("against") > half else "undecided"


def combine_verdicts(verdicts: list[str]) -> str:
    """Return the verdict on a finding from the verdicts on its parts."""
    if "refuted" in verdicts:
        return "refuted"
    return "confirmed" if set(verdicts) == {"confirmed"} else "undecided"


class Estimate(NamedTuple):
    """An estimate over n datasets with its 95% interval."""

    n: int
    value: float = np.nan
    low: float = np.nan
    high: float = np.nan


def make_evidence_row(model: str, cell: str, estimate: Estimate, sign: int = 1) -> dict:
    """Return the row of one cell, without its finding and part; sign as in `get_vote`."""
    vote = get_vote(estimate.low, estimate.high, sign)
    return {"model": model, "cell": cell, "n": estimate.n, "estimate": estimate.value,
            "low": estimate.low, "high": estimate.high, "vote": vote}  # fmt: skip


def compare_with_rivals(differences: pd.DataFrame) -> Iterator[dict]:
    """Yield the differences between IIMM's correlation with gain and that of each rival."""
    rows = differences[(differences.method == "full") & (differences.outcome == GAIN)]
    for row in rows[rows.rival.isin(RIVALS)].to_dict("records"):
        estimate = Estimate(row["n"], row["difference"], row["low"], row["high"])
        yield make_evidence_row(row["model"], f"iimm less {row['rival']}", estimate)


def compare_slopes(fits: pd.DataFrame, outcome: str, sign: int) -> Iterator[dict]:
    """Yield the slopes of an outcome on IIMM."""
    for row in fits[fits.outcome == outcome].to_dict("records"):
        estimate = Estimate(row["n"], row["slope"])
        if row["n"] >= MIN_PAIRED_DATASETS:
            estimate = Estimate(row["n"], row["slope"], row["slope_low"], row["slope_high"])
        yield make_evidence_row(row["model"], f"slope of {outcome} on iimm", estimate, sign)


def compare_hinges(fits: pd.DataFrame) -> Iterator[dict]:
    """Yield the differences of AICc between the hinge and the line of gain on IIMM."""
    for row in fits[fits.outcome == GAIN].to_dict("records"):
        difference = row["aicc_difference"]
        vote = "open" if is_known(difference) else "missing"
        if difference <= -CLEAR_AICC_DIFFERENCE and row["hinge_slope"] > 0:
            vote = "for"
        elif difference >= CLEAR_AICC_DIFFERENCE and row["slope_low"] > 0:
            # A gain that does not rise cannot level off, and tells nothing about a threshold.
            vote = "against"
        estimate = Estimate(row["n"], difference)
        evidence = make_evidence_row(row["model"], "AICc of the hinge less the line's", estimate)
        yield evidence | {"vote": vote}


def compare_methods(
    tasks: pd.DataFrame, outcome: str, methods: tuple[str, ...], others: list[str], sign: int
) -> Iterator[dict]:
    """Yield the mean of `methods` minus `others`, pair by pair, on the datasets that both have."""
    for model, group in tasks.groupby("model"):
        wide = group.pivot(index="dataset", columns="method", values=outcome)
        for method in methods:
            for other in others:
                if {method, other} - set(wide):
                    continue
                differences = (wide[method] - wide[other]).dropna().astype(float)
                mean = differences.mean()
                low = high = np.nan
                if len(differences) >= MIN_PAIRED_DATASETS:
                    low = high = mean
                    if np.ptp(differences) > 0:
                        low, high = stats.ttest_1samp(differences, 0).confidence_interval()
                estimate = Estimate(len(differences), mean, low, high)
                cell = f"{outcome}, {method} less {other}"
                yield make_evidence_row(str(model), cell, estimate, sign)


def compare_difficulty(tasks: pd.DataFrame, seed: int) -> Iterator[dict]:
    """Yield how much better the silhouette follows the zero-shot error than cosine similarity."""
    names = ["silhouette_cosine", "correct_label_alignment"]
    if not set(names) <= set(tasks):
        return
    for model, group in tasks.drop_duplicates(["model", "dataset"]).groupby("model"):
        known = group[[*names, "zero_shot_accuracy"]].astype(float).dropna()
        estimate = Estimate(len(known))
        if len(known) >= MIN_PAIRED_DATASETS:
            x, errors = known[names].to_numpy().T, 1 - known[["zero_shot_accuracy"]].to_numpy().T
            correlations = correlate(x, errors, seed)
            difference = np.abs(correlations["spearman"][0]) @ [1, -1]
            low, high, _ = percentile_interval(np.abs(correlations["draws"][:, 0]) @ [1, -1])
            estimate = Estimate(len(known), difference, float(low), float(high))
        cell = "silhouette_cosine less correct_label_alignment"
        yield make_evidence_row(str(model), cell, estimate)


def collect_evidence(
    tasks: pd.DataFrame, statistics: pd.DataFrame, differences: pd.DataFrame, seed: int
) -> pd.DataFrame:
    """Return one row for each cell of each part, with its estimate, interval and vote.

    tasks, statistics and differences are the study's tables of these names.
    """
    fits = statistics[(statistics.method == "full") & (statistics.measure == "iimm")]
    fits_without_clip = fits[fits.model.map(get_model_family).ne("CLIP")]
    tuned = tasks[~tasks.method.map(get_base_method).isin(HEAD_METHODS)]
    methods = list(dict.fromkeys(tuned.method))

    def list_others(*names: str) -> list[str]:
        return [name for name in methods if name not in names]

    high_iimm = tuned.iloc[:0]
    if "iimm" in tuned:
        high_iimm = tuned[tuned.iimm >= tuned.groupby("model").iimm.transform("median")]
    balanced = tuned.assign(balance=(tuned.shifted_change + tuned.ood_change) / 2)
    efficient, adapter, attention = ("lora", "bitfit"), ("clip_adapter",), ("attention",)
    cells = {
        (1, "a"): compare_with_rivals(differences),
        (2, "a"): compare_slopes(fits, GAIN, 1),
        (2, "b"): compare_hinges(fits),
        (3, "a"): compare_slopes(fits_without_clip, "ood_change", -1),
        (4, "a"): compare_methods(high_iimm, "ood_change", efficient, list_others(*efficient), -1),
        (4, "b"): compare_methods(tuned, GAIN, adapter, list_others(*adapter), -1),
        (4, "c"): compare_methods(tuned, "ood_change", adapter, list_others(*adapter), 1),
        (5, "a"): compare_difficulty(tasks, seed),
        (5, "b"): compare_methods(balanced, "balance", attention, list_others(*attention), 1),
    }
    rows = [
        {"finding": finding, "part": part} | row
        for (finding, part), part_rows in cells.items()
        for row in part_rows
    ]
    numbers = dict.fromkeys(["estimate", "low", "high"], "float64")
    counts = dict.fromkeys(["finding", "n"], "int64")
    return pd.DataFrame(rows, columns=EVIDENCE_COLUMNS).astype(numbers | counts)


def answer_findings(evidence: pd.DataFrame) -> pd.DataFrame:
    """Return one row per finding, with its verdict from the votes in `evidence`."""
    rows = []
    for finding in dict.fromkeys(finding for finding, _ in PARTS):
        parts = {part: claim for (number, part), claim in PARTS.items() if number == finding}
        cells = {
            part: evidence[(evidence.finding == finding) & (evidence.part == part)]
            for part in parts
        }
        verdicts = {part: get_verdict(list(cells[part].vote)) for part in parts}
        counts = evidence.vote[evidence.finding == finding].value_counts()
        rows.append({
            "finding": finding, "verdict": combine_verdicts(list(verdicts.values())),
            "claim": "; ".join(claim for claim, _ in parts.values()),
            "parts": "; ".join(f"{part}: {verdict}" for part, verdict in verdicts.items()),
            "evidence": "; ".join(summarize_evidence(cells[part], part) for part in parts),
            "rule": "; ".join(f"{part}: {rule}" for part, (_, rule) in parts.items()),
            **{vote: int(counts.get(vote, 0)) for vote in VOTES},
        })  # fmt: skip
    return pd.DataFrame(rows, columns=FINDING_COLUMNS)


def summarize_evidence(cells: pd.DataFrame, part: str) -> str:
    """Return one line about a part: the votes of its cells, and the range of their estimates."""
    estimates = cells.estimate.dropna()
    if estimates.empty:
        return f"{part}: nothing in this study to compare"
    votes = ", ".join(f"{count} {vote}" for vote, count in cells.vote.value_counts().items())
    span = format_number(estimates.min())
    if len(estimates) > 1:
        span += f" to {format_number(estimates.max())}, median {format_number(estimates.median())}"
    return f"{part}: {votes}; estimates {span}"
