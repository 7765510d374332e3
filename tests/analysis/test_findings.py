"""The papers' findings on made-up studies in which each verdict must come out."""

import numpy as np
import pandas as pd
import pytest

from foretune.analysis import rank_correlation as correlations
from foretune.analysis.findings import (
    PARTS,
    answer_findings,
    collect_evidence,
    combine_verdicts,
    get_verdict,
    get_vote,
)
from foretune.analysis.statistics import study_statistics

GAIN = "gain_over_zero_shot_error"
RIVALS = ["emms", "ncti", "sfda", "transrate"]
MEASURES = ["iimm", *RIVALS, "silhouette_cosine", "correct_label_alignment"]
METHODS = ["full", "attention", "bitfit", "lora", "clip_adapter"]
N = 16


def study(rival=0.0, own=1.0, bend=0.6, forgets=-1.0, worst=-0.1, adapter=-0.2, silhouette=True,
          attention=0.1, n=N, methods=METHODS, seed=0):  # fmt: skip
    """rival, own: how far gain goes with the rivals and with iimm; bend: threshold of the hinge;
    forgets: slope of ood_change on iimm; worst: what lora and bitfit add to it where iimm is high;
    adapter: what it adds to gain, and takes from forgetting; attention: what it adds to both
    changes; silhouette: whether it, and not the cosine similarity, follows the zero-shot error.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for model in ("clip_x", "coca_x", "eva_x"):
        measures = rng.uniform(size=(n, len(MEASURES)))
        measures[:, 0] = np.linspace(0, 1, n)
        zero = measures[:, 5 if silhouette else 6]
        for method in methods:
            iimm, others = measures[:, 0], measures[:, 1:5].mean(axis=1)
            gain = own * np.minimum(iimm, bend) + rival * others + rng.normal(0, 0.02, n)
            ood = forgets * iimm + rng.normal(0, 0.02, n)
            shifted = rng.normal(0, 0.02, n)
            if method in ("lora", "bitfit"):
                ood += worst * (iimm > 0.4)
            if method == "clip_adapter":
                gain, ood = gain + adapter, ood - adapter
            if method == "attention":
                ood, shifted = ood + attention, shifted + attention
            rows.append(pd.DataFrame(measures, columns=MEASURES).assign(
                model=model, method=method, dataset=[f"d{i}" for i in range(n)],
                accuracy=gain, zero_shot_accuracy=1 - zero, ood_change=ood, shifted_change=shifted,
                **{GAIN: gain},
            ))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def found(**changes):
    """The findings, and their evidence, of such a study."""
    return judge(study(**changes))


def judge(tasks):
    names = [name for name in MEASURES if name in tasks]
    full = tasks[tasks.method == "full"]  # of the others the findings need no statistics
    tables = study_statistics(full, tasks[["model", "dataset"]], names, 0)
    evidence = collect_evidence(tasks, *tables, seed=0)
    return answer_findings(evidence).set_index("finding"), evidence


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """No finding looks at p-values by permutation; the intervals may be coarse."""
    monkeypatch.setattr(correlations, "PERMUTATIONS", 99)
    monkeypatch.setattr(correlations, "RESAMPLES", 400)
    correlations.draw_resamples.cache_clear()
    yield
    correlations.draw_resamples.cache_clear()


def parts(row):
    return dict(part.split(": ") for part in row.split("; "))


def test_all_that_the_papers_found_can_be_confirmed():
    # CLIP-Adapter forgets least, so that nothing is better balanced than it but by luck.
    findings, evidence = found(adapter=-0.05, attention=0.0)
    assert findings.verdict.drop(5).to_dict() == dict.fromkeys([1, 2, 3, 4], "confirmed")
    assert parts(findings.parts[5])["a"] == "confirmed"
    votes = evidence.vote[evidence.finding == 1]
    assert len(votes) == 3 * 4 and findings["for"][1] == (votes == "for").sum() > 6
    assert f"{(votes == 'for').sum()} for" in findings.evidence[1]
    # CLIP is not asked whether it forgets.
    assert list(evidence.model[evidence.finding == 3]) == ["coca_x", "eva_x"]
    # A balance is confirmed where attention is better than every other method.
    findings, _ = found(adapter=0.0, attention=0.2)
    assert parts(findings.parts[5]) == {"a": "confirmed", "b": "confirmed"}
    assert findings.verdict[5] == "confirmed" and findings.verdict[4] == "undecided"


@pytest.mark.parametrize(
    ("finding", "part", "changes"),
    [
        (1, "a", {"own": 0.0, "rival": 1.0}),
        (2, "a", {"own": -1.0}),
        (2, "b", {"bend": 9.0}),
        (3, "a", {"forgets": 1.0}),
        (4, "a", {"worst": 0.5}),
        (4, "b", {"adapter": 0.2}),
        (4, "c", {"adapter": 0.2}),
        (5, "a", {"silhouette": False}),
        (5, "b", {"attention": -0.3}),
    ],
)
def test_each_part_can_be_refuted(finding, part, changes):
    if finding == 1:  # each rival goes with gain only where all are one
        tasks = study(**changes)
        for name in RIVALS:
            tasks[name] = tasks[GAIN] + 0.01 * tasks[name]
        findings, _ = judge(tasks)
    else:
        findings, _ = found(**changes)
    assert parts(findings.parts[finding])[part] == "refuted"
    assert findings.verdict[finding] == "refuted"


def test_noise_decides_nothing():
    findings, evidence = found(own=0.0, forgets=0.0, worst=0.0, adapter=0.0, attention=0.0, n=6)
    assert "confirmed" not in set(findings.verdict)
    assert (evidence.vote == "open").sum() > len(evidence) / 2
    assert findings.verdict[1] == findings.verdict[3] == "undecided"


def test_no_slope_no_threshold():
    """A hinge costs a coefficient; where nothing rises, that is no word against a threshold."""
    _, evidence = found(own=0.0)
    hinges = evidence[(evidence.finding == 2) & (evidence.part == "b")]
    assert (hinges.vote == "open").all()


def test_a_study_that_cannot_say():
    findings, evidence = found(n=3)
    assert set(findings.verdict) == {"undecided"} and set(evidence.vote) == {"missing"}
    findings, evidence = found(methods=["linear_probe"])
    assert set(findings.verdict) == {"undecided"}
    assert set(evidence.finding) == {5}  # zero-shot error needs no tuning
    assert "nothing in this study to compare" in findings.evidence[4]
    tasks = study()[["model", "method", "dataset", GAIN, "accuracy", "ood_change",
                     "shifted_change", "zero_shot_accuracy", "emms"]]  # fmt: skip
    findings, _ = judge(tasks)
    assert set(findings.verdict[[1, 2, 3]]) == {"undecided"} and len(findings) == 5


def test_paired_differences_by_hand():
    tasks = study(n=5, methods=["full", "clip_adapter"])
    _, evidence = found(n=5, methods=["full", "clip_adapter"])
    row = evidence[(evidence.finding == 4) & (evidence.part == "b")].iloc[0]
    own = tasks[tasks.model == "clip_x"].pivot(index="dataset", columns="method", values=GAIN)
    by = own.clip_adapter - own.full
    half = 2.7764451 * by.std() / np.sqrt(5)  # t(0.975, 4)
    assert row.cell == f"{GAIN}, clip_adapter less full" and row.n == 5
    assert (row.low, row.high) == pytest.approx((by.mean() - half, by.mean() + half))


def test_votes_and_verdicts():
    assert [get_vote(0.1, 0.2), get_vote(-0.2, -0.1), get_vote(-1, 1)] == ["for", "against", "open"]
    assert [get_vote(0.1, 0.2, -1), get_vote(-0.2, -0.1, -1)] == ["against", "for"]
    assert get_vote(np.nan, 1) == "missing"
    assert get_verdict(["for", "for", "open"]) == "confirmed"
    assert get_verdict(["for", "for", "for", "against"]) == "undecided"
    assert get_verdict(["against", "against", "for"]) == "refuted"
    assert (
        get_verdict(["for", "open"]) == get_verdict([]) == get_verdict(["missing"]) == "undecided"
    )
    assert get_verdict(["for", "missing", "missing"]) == "confirmed"
    assert combine_verdicts(["confirmed", "confirmed"]) == "confirmed"
    assert combine_verdicts(["confirmed", "undecided"]) == "undecided"
    assert combine_verdicts(["confirmed", "refuted", "undecided"]) == "refuted"
    assert {finding for finding, _ in PARTS} == {1, 2, 3, 4, 5}
