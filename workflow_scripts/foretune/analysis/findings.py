"""The five findings of the two papers, each confirmed, refuted or undecided on a study.

A finding's parts are claims that are compared cell by cell (a model, a pair of methods, ...). A
cell votes for the claim where its 95% interval lies on the claim's side of 0, against it where
the interval lies on the other side, and is open in between; with too few datasets it is missing.
A part is confirmed where more than half of its votes are for it and none is against, refuted
where more than half are against, else undecided; a finding is confirmed where all of its parts
are, refuted where one is, else undecided. Intervals are not corrected for how many they are.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats

from foretune.analysis.formatting import format_number, is_known
from foretune.analysis.outcomes import GAIN
from foretune.analysis.paper_tables import get_model_family
from foretune.analysis.rank_correlation import correlate, percentile_interval

RIVALS = ("emms", "ncti", "sfda", "transrate")
MIN_PAIRED_DATASETS = 4  # datasets of a paired comparison
CLEAR_AIC_DIFFERENCE = 2  # a difference of AIC that counts

# (finding, part) -> claim, rule.
PARTS = {
    (1, "a"): (
        "IIMM correlates with gain more strongly than EMMS, NCTI, SFDA and TransRate",
        "for each model and rival: iimm's Spearman's rho with gain less the rival's, full "
        "fine-tuning, bootstrap interval above 0",
    ),
    (2, "a"): (
        "gain rises with IIMM",
        "for each model: slope of the line of gain on iimm, full fine-tuning, interval above 0",
    ),
    (2, "b"): (
        "gain is flat above an upper threshold of IIMM",
        f"for each model: AIC of the hinge less that of the line at most -{CLEAR_AIC_DIFFERENCE} and the hinge "
        f"rises (for); or at least {CLEAR_AIC_DIFFERENCE}, where the line's slope has its interval above 0",
    ),
    (3, "a"): (
        "ood_change falls with IIMM (all base models but CLIP)",
        "for each model but CLIP: slope of the line of ood_change on iimm, full fine-tuning, "
        "interval below 0",
    ),
    (4, "a"): (
        "LoRA and BitFit forget most where IIMM is high",
        "for each model and other method that tunes weights or adapters: paired t interval of "
        "the difference of ood_change below 0, over the datasets with iimm at or above its median",
    ),
    (4, "b"): (
        "CLIP-Adapter gains least",
        "for each model and other method but a probe: paired t interval of the difference of "
        "gain below 0",
    ),
    (4, "c"): (
        "CLIP-Adapter forgets least",
        "for each model and other method: paired t interval of the difference of ood_change "
        "above 0",
    ),
    (5, "a"): (
        "the silhouette score measures task difficulty better than the mean cosine similarity of "
        "correct pairs",
        "for each model: |rho| of silhouette_cosine with the zero-shot error less that of "
        "correct_label_alignment, bootstrap interval above 0",
    ),
    (5, "b"): (
        "tuning attention's in-projections (A-CLIP) balances domain generalisation and forgetting",
        "for each model and other method: paired t interval of the difference of the mean of "
        "shifted_change and ood_change above 0",
    ),
}  # fmt: skip
EVIDENCE_COLUMNS = ["finding", "part", "model", "cell", "n", "estimate", "low", "high", "vote"]
FINDING_COLUMNS = ["finding", "claim", "verdict", "parts", "for", "against", "open", "missing",
            "evidence", "rule"]  # fmt: skip


def get_vote(low: float, high: float, sign: int = 1) -> str:
    """What an interval says of the claim that the estimate is above 0, or below it (sign -1)."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return "missing"
    low, high = sorted((sign * low, sign * high))
    return "for" if low > 0 else "against" if high < 0 else "open"


def get_verdict(votes: list[str]) -> str:
    """What the votes on one claim come to; see the module's docstring."""
    said = [vote for vote in votes if vote != "missing"]
    half = len(said) / 2
    if said.count("for") > half and "against" not in said:
        return "confirmed"
    return "refuted" if said.count("against") > half else "undecided"


def combine_verdicts(verdicts: list[str]) -> str:
    """The verdict on a finding from those on its parts."""
    if "refuted" in verdicts:
        return "refuted"
    return "confirmed" if set(verdicts) == {"confirmed"} else "undecided"


def compare_with_rivals(differences: pd.DataFrame) -> Iterator[dict]:
    rows = differences[(differences.method == "full") & (differences.outcome == GAIN)]
    for row in rows[rows.rival.isin(RIVALS)].to_dict("records"):
        yield make_evidence_row(
            row, f"iimm less {row['rival']}", row["difference"], row["low"], row["high"]
        )


def make_evidence_row(
    row: dict, name: str, estimate: float, low: float, high: float, sign: int = 1
) -> dict:
    return {"model": row["model"], "cell": name, "n": row["n"], "estimate": estimate,
            "low": low, "high": high, "vote": get_vote(low, high, sign)}  # fmt: skip


def compare_slopes(fits: pd.DataFrame, outcome: str, sign: int) -> Iterator[dict]:
    for row in fits[fits.outcome == outcome].to_dict("records"):
        name = f"slope of {outcome} on iimm"
        few = row["n"] < MIN_PAIRED_DATASETS
        low, high = (np.nan,) * 2 if few else (row["slope_low"], row["slope_high"])
        yield make_evidence_row(row, name, row["slope"], low, high, sign)


def compare_hinges(fits: pd.DataFrame) -> Iterator[dict]:
    for row in fits[fits.outcome == GAIN].to_dict("records"):
        by = row["aic_difference"]
        vote = "open"
        if by <= -CLEAR_AIC_DIFFERENCE and row["hinge_slope"] > 0:
            vote = "for"
        elif (
            by >= CLEAR_AIC_DIFFERENCE and row["slope_low"] > 0
        ):  # else there is no rise that could end
            vote = "against"
        found = make_evidence_row(row, "AIC of the hinge less the line's", by, np.nan, np.nan)
        yield found | {"vote": vote if is_known(by) else "missing"}


def compare_methods(
    tasks: pd.DataFrame, outcome: str, methods: tuple, others: list[str], sign: int
) -> Iterator[dict]:
    """Each of `methods` less each of `others`, on the datasets that both of them have."""
    for model, group in tasks.groupby("model"):
        wide = group.pivot(index="dataset", columns="method", values=outcome)
        for method in methods:
            for other in others:
                if {method, other} - set(wide):
                    continue
                by = (wide[method] - wide[other]).dropna().astype(float)
                low = high = np.nan
                if len(by) >= MIN_PAIRED_DATASETS:
                    low = high = by.mean()
                    if np.ptp(by) > 0:
                        low, high = stats.ttest_1samp(by, 0).confidence_interval()
                row, name = {"model": model, "n": len(by)}, f"{outcome}, {method} less {other}"
                yield make_evidence_row(row, name, by.mean(), low, high, sign)


def compare_difficulty(tasks: pd.DataFrame, seed: int) -> Iterator[dict]:
    """Silhouette against cosine similarity, as measures of the zero-shot error."""
    names = ["silhouette_cosine", "correct_label_alignment"]
    if not set(names) <= set(tasks):
        return
    for model, group in tasks.drop_duplicates(["model", "dataset"]).groupby("model"):
        some = group[[*names, "zero_shot_accuracy"]].astype(float).dropna()
        by, low, high = (np.nan,) * 3
        if len(some) >= MIN_PAIRED_DATASETS:
            x, y = some[names].to_numpy().T, 1 - some[["zero_shot_accuracy"]].to_numpy().T
            found = correlate(x, y, seed)
            by = np.abs(found["spearman"][0]) @ [1, -1]
            low, high, _ = percentile_interval(np.abs(found["draws"][:, 0]) @ [1, -1])
        row = {"model": model, "n": len(some)}
        yield make_evidence_row(
            row, "silhouette_cosine less correct_label_alignment", by, low, high
        )


def collect_evidence(
    tasks: pd.DataFrame, statistics: pd.DataFrame, differences: pd.DataFrame, seed: int
) -> pd.DataFrame:
    """One row for each cell of each part: its estimate, interval and vote.

    tasks, statistics and differences are the study's tables of these names.
    """
    fits = statistics[(statistics.method == "full") & (statistics.measure == "iimm")]
    no_clip = fits[fits.model.map(get_model_family).ne("CLIP")]
    tuned = tasks[tasks.method != "linear_probe"]
    methods = list(dict.fromkeys(tuned.method))

    def but(*names: str) -> list[str]:
        return [name for name in methods if name not in names]

    high = tuned.iloc[:0]
    if "iimm" in tuned:
        high = tuned[tuned.iimm >= tuned.groupby("model").iimm.transform("median")]
    both = tuned.assign(balance=(tuned.shifted_change + tuned.ood_change) / 2)
    cells = {
        (1, "a"): compare_with_rivals(differences),
        (2, "a"): compare_slopes(fits, GAIN, 1),
        (2, "b"): compare_hinges(fits),
        (3, "a"): compare_slopes(no_clip, "ood_change", -1),
        (4, "a"): compare_methods(
            high, "ood_change", ("lora", "bitfit"), but("lora", "bitfit"), -1
        ),
        (4, "b"): compare_methods(tuned, GAIN, ("clip_adapter",), but("clip_adapter"), -1),
        (4, "c"): compare_methods(tuned, "ood_change", ("clip_adapter",), but("clip_adapter"), 1),
        (5, "a"): compare_difficulty(tasks, seed),
        (5, "b"): compare_methods(both, "balance", ("attention",), but("attention"), 1),
    }
    rows = [
        {"finding": finding, "part": part} | row
        for (finding, part), found in cells.items()
        for row in found
    ]
    numbers = dict.fromkeys(["estimate", "low", "high"], float) | {"finding": "int64"}
    return pd.DataFrame(rows, columns=EVIDENCE_COLUMNS).astype(numbers | {"n": "int64"})


def answer_findings(evidence: pd.DataFrame) -> pd.DataFrame:
    """The five findings with their verdicts, from the votes in `evidence`."""
    rows = []
    for finding in dict.fromkeys(finding for finding, _ in PARTS):
        parts = {part: said for (number_of, part), said in PARTS.items() if number_of == finding}
        own = evidence[evidence.finding == finding]
        verdicts = {part: get_verdict(list(own.vote[own.part == part])) for part in parts}
        counts = own.vote.value_counts()
        rows.append({
            "finding": finding, "verdict": combine_verdicts(list(verdicts.values())),
            "claim": "; ".join(claim for claim, _ in parts.values()),
            "parts": "; ".join(f"{part}: {verdict}" for part, verdict in verdicts.items()),
            "evidence": "; ".join(summarize_evidence(own[own.part == part], part) for part in parts),
            "rule": "; ".join(f"{part}: {rule}" for part, (_, rule) in parts.items()),
            **{vote: int(counts.get(vote, 0)) for vote in ("for", "against", "open", "missing")},
        })  # fmt: skip
    return pd.DataFrame(rows, columns=FINDING_COLUMNS)


def summarize_evidence(cells: pd.DataFrame, part: str) -> str:
    """The figures of one part in a line: how many cells, and the range of their estimates."""
    shown = cells.estimate.dropna()
    if shown.empty:
        return f"{part}: nothing in this study to compare"
    votes = ", ".join(f"{n} {vote}" for vote, n in cells.vote.value_counts().items())
    span = format_number(shown.min())
    if len(shown) > 1:
        span += f" to {format_number(shown.max())}, median {format_number(shown.median())}"
    return f"{part}: {votes}; estimates {span}"
