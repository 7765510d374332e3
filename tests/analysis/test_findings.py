"""The papers' findings on synthetic studies whose verdicts are known."""

import numpy as np
import pandas as pd
import pytest

from foretune.analysis import rank_correlation
from foretune.analysis.findings import (
    PARTS,
    answer_findings,
    collect_evidence,
    combine_verdicts,
    get_verdict,
    get_vote,
)
from foretune.analysis.outcomes import GAIN
from foretune.analysis.statistics import study_statistics

RIVALS = ["emms", "ncti", "sfda", "transrate"]
MEASURES = ["iimm", *RIVALS, "silhouette_cosine", "correct_label_alignment"]
METHODS = ["full", "attention", "bitfit", "lora", "clip_adapter"]
N = 16


def make_tasks(rival=0.0, iimm_slope=1.0, bend=0.6, forgets=-1.0, worst=-0.1, adapter=-0.2,
               silhouette=True, attention=0.1, n=N, methods=METHODS, seed=0):  # fmt: skip
    """Return the tasks of three models on n datasets.

    rival, iimm_slope: slope of gain on the mean of the rivals and on iimm; bend: threshold of the
    hinge; forgets: slope of ood_change on iimm; worst: what lora and bitfit add to ood_change
    where iimm is high; adapter: what CLIP-Adapter adds to gain and subtracts from ood_change;
    attention: what A-CLIP adds to both changes; silhouette: whether the silhouette score, and not
    the cosine similarity, follows the zero-shot error.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for model in ("clip_x", "coca_x", "eva_x"):
        measures = rng.uniform(size=(n, len(MEASURES)))
        measures[:, 0] = np.linspace(0, 1, n)
        zero = measures[:, 5 if silhouette else 6]
        for method in methods:
            iimm, others = measures[:, 0], measures[:, 1:5].mean(axis=1)
            gain = iimm_slope * np.minimum(iimm, bend) + rival * others + rng.normal(0, 0.02, n)
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


def judge_study(**changes):
    """Return the findings on a synthetic study, and their evidence."""
    return judge_tasks(make_tasks(**changes))


def judge_tasks(tasks):
    names = [name for name in MEASURES if name in tasks]
    full = tasks[tasks.method == "full"]  # the findings use no statistics of other methods
    tables = study_statistics(full, tasks[["model", "dataset"]], names, 0)
    evidence = collect_evidence(tasks, *tables, seed=0)
    return answer_findings(evidence).set_index("finding"), evidence


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Save time: no finding uses permutation p-values, and the intervals may be coarse."""
    monkeypatch.setattr(rank_correlation, "PERMUTATIONS", 99)
    monkeypatch.setattr(rank_correlation, "RESAMPLES", 400)
    drawn = (
        rank_correlation.count_resamples, rank_correlation.list_orders,
        rank_correlation.null_distribution,
    )  # fmt: skip
    for cached in drawn:
        cached.cache_clear()
    yield
    for cached in drawn:  # otherwise later tests would use these few draws
        cached.cache_clear()


def read_parts(text):
    """Return the verdict on each part from a row's `parts`."""
    return dict(part.split(": ") for part in text.split("; "))


def test_findings_of_the_papers_can_be_confirmed():
    # CLIP-Adapter forgets least, so A-CLIP cannot be better balanced than it, except by chance.
    findings, evidence = judge_study(adapter=-0.05, attention=0.0)
    assert findings.verdict.drop(5).to_dict() == dict.fromkeys([1, 2, 3, 4], "confirmed")
    assert read_parts(findings.parts[5])["a"] == "confirmed"
    votes = evidence.vote[evidence.finding == 1]
    assert len(votes) == 3 * 4 and findings["for"][1] == (votes == "for").sum() > 6
    assert f"{(votes == 'for').sum()} for" in findings.evidence[1]
    # The claim on forgetting excludes CLIP.
    assert list(evidence.model[evidence.finding == 3]) == ["coca_x", "eva_x"]
    # The balance is confirmed if A-CLIP is better than every other method.
    findings, _ = judge_study(adapter=0.0, attention=0.2)
    assert read_parts(findings.parts[5]) == {"a": "confirmed", "b": "confirmed"}
    assert findings.verdict[5] == "confirmed" and findings.verdict[4] == "undecided"


@pytest.mark.parametrize(
    ("finding", "part", "changes"),
    [
        (1, "a", {"iimm_slope": 0.0, "rival": 1.0}),
        (2, "a", {"iimm_slope": -1.0}),
        (2, "b", {"bend": 9.0}),
        (3, "a", {"forgets": 1.0}),
        (4, "a", {"worst": 0.5}),
        (4, "b", {"adapter": 0.2}),
        (4, "c", {"adapter": 0.2}),
        (5, "a", {"silhouette": False}),
        (5, "b", {"attention": -0.3}),
    ],
)
def test_findings_can_be_refuted_in_each_part(finding, part, changes):
    if finding == 1:  # each rival correlates with gain only if all rivals are nearly equal
        tasks = make_tasks(**changes)
        for name in RIVALS:
            tasks[name] = tasks[GAIN] + 0.01 * tasks[name]
        findings, _ = judge_tasks(tasks)
    else:
        findings, _ = judge_study(**changes)
    assert read_parts(findings.parts[finding])[part] == "refuted"
    assert findings.verdict[finding] == "refuted"


def test_findings_are_undecided_on_noise():
    findings, evidence = judge_study(
        iimm_slope=0.0, forgets=0.0, worst=0.0, adapter=0.0, attention=0.0, n=6
    )
    assert "confirmed" not in set(findings.verdict)
    assert (evidence.vote == "open").sum() > len(evidence) / 2
    assert findings.verdict[1] == findings.verdict[3] == "undecided"


def test_compare_hinges_leaves_a_flat_gain_open():
    """The AIC favours the line over the hinge, but without a rise it says nothing of thresholds."""
    _, evidence = judge_study(iimm_slope=0.0)
    hinges = evidence[(evidence.finding == 2) & (evidence.part == "b")]
    assert (hinges.vote == "open").all()


def test_findings_are_undecided_if_data_is_missing():
    findings, evidence = judge_study(n=3)
    assert set(findings.verdict) == {"undecided"} and set(evidence.vote) == {"missing"}
    findings, evidence = judge_study(methods=["linear_probe"])
    assert set(findings.verdict) == {"undecided"}
    assert set(evidence.finding) == {5}  # the zero-shot error needs no fine-tuning
    assert "nothing in this study to compare" in findings.evidence[4]
    tasks = make_tasks()[["model", "method", "dataset", GAIN, "accuracy", "ood_change",
                     "shifted_change", "zero_shot_accuracy", "emms"]]  # fmt: skip
    findings, _ = judge_tasks(tasks)
    assert set(findings.verdict[[1, 2, 3]]) == {"undecided"} and len(findings) == 5


def test_compare_methods_agrees_with_a_paired_t_interval():
    tasks = make_tasks(n=5, methods=["full", "clip_adapter"])
    _, evidence = judge_study(n=5, methods=["full", "clip_adapter"])
    row = evidence[(evidence.finding == 4) & (evidence.part == "b")].iloc[0]
    gains = tasks[tasks.model == "clip_x"].pivot(index="dataset", columns="method", values=GAIN)
    difference = gains.clip_adapter - gains.full
    half = 2.7764451 * difference.std() / np.sqrt(5)  # t(0.975, 4)
    assert row.cell == f"{GAIN}, clip_adapter less full" and row.n == 5
    assert (row.low, row.high) == pytest.approx(
        (difference.mean() - half, difference.mean() + half)
    )


def test_get_vote_and_get_verdict():
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
