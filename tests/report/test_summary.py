"""Tests of the report's answers in words, above all that they claim only what is shown."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from foretune.analysis.findings import PARTS
from foretune.analysis.outcomes import GAIN
from foretune.report.summary import (
    answer_what_predicts,
    find_best_run,
    make_overview_answers,
    summarize_findings,
)


def make_statistics(**measures) -> pd.DataFrame:
    """Return correlations with gain; measures: name -> (corrected p, rho) of each model."""
    return pd.DataFrame([
        {"model": f"m{i}", "method": "full", "measure": name, "outcome": GAIN, "n": 9,
         "spearman": rho, "spearman_low": rho - 0.2, "spearman_high": rho + 0.2,
         "p_permutation": p / 10, "p_holm": p}
        for name, values in measures.items() for i, (p, rho) in enumerate(values)
    ])  # fmt: skip


NOT_SHOWN, POSITIVE, NEGATIVE = (0.6, 0.4), (0.01, 0.9), (0.02, -0.85)


def test_answer_what_predicts_claims_nothing_without_a_shown_correlation():
    answer = answer_what_predicts(make_statistics(iimm=[NOT_SHOWN] * 3, sfda=[NOT_SHOWN] * 3), GAIN)
    assert answer["answer"].startswith("Not shown: no measure predicts the gain for any of the 3")
    correlation = "ρ = 0.400 (95% interval 0.200 to 0.600; permutation p = 0.06, 0.6 after"
    assert correlation in answer["sentences"][0]
    assert "n = 9" in answer["sentences"][0]
    assert answer["sentences"][-1].startswith("IIMM’s correlation is shown for 0 of 3 pairs")


def test_answer_what_predicts_names_the_measure_shown_for_most_pairs():
    statistics = make_statistics(
        iimm=[NOT_SHOWN, NOT_SHOWN, POSITIVE], sfda=[POSITIVE, NEGATIVE, NOT_SHOWN]
    )
    answer = answer_what_predicts(statistics, GAIN)
    assert answer["answer"] == "sfda, for 2 of 3 pairs of model and method (ρ −0.850 to 0.900)."
    assert "shown for 1 of 3 pairs" in answer["sentences"][-1]


def test_answer_what_predicts_does_not_generalize_from_one_pair():
    answer = answer_what_predicts(
        make_statistics(iimm=[NOT_SHOWN, NOT_SHOWN, POSITIVE], sfda=[NOT_SHOWN] * 3), GAIN
    )
    assert answer["answer"].startswith("Not shown in general; at best iimm, for 1 of 3 pairs")


def test_answer_what_predicts_returns_none_for_an_untested_outcome():
    assert answer_what_predicts(make_statistics(iimm=[NOT_SHOWN]), "ood_change") is None
    assert answer_what_predicts(make_statistics(iimm=[(np.nan, np.nan)]), GAIN) is None


def make_tasks(shift: float, noise: float) -> pd.DataFrame:
    """Return tasks in which lora leads full by `shift`, plus and minus `noise` in turn."""
    rng = np.random.default_rng(0)
    accuracy = rng.uniform(0.4, 0.8, 8)
    accuracies = {"full": accuracy, "lora": accuracy + shift + noise * np.tile([1, -1], 4)}
    return pd.concat([
        pd.DataFrame({"model": "m", "method": method, "dataset": [f"d{i}" for i in range(8)],
                      "accuracy": values, GAIN: values / 2, "ood_change": -values})
        for method, values in accuracies.items()
    ])  # fmt: skip


def test_find_best_run_has_the_interval_of_scipys_paired_t_test():
    tasks = make_tasks(0.1, 0.01)
    best = find_best_run(tasks, "accuracy")
    wide = tasks.pivot(index="dataset", columns="method", values="accuracy")
    low, high = stats.ttest_rel(wide.lora, wide.full).confidence_interval()
    assert best.run == ("m", "lora") and best.second == ("m", "full")
    assert best.interval == pytest.approx((low, high))


def test_answer_which_run_does_not_call_a_lead_by_chance_better():
    statistics = make_statistics(iimm=[NOT_SHOWN])
    clear = make_overview_answers(make_tasks(0.1, 0.01), statistics)[-1]
    by_chance = make_overview_answers(make_tasks(0.001, 0.1), statistics)[-1]
    assert "lora on m has the highest mean test accuracy" in clear["answer"]
    sentence = clear["sentences"][0]
    assert "not shown to be better" not in sentence and ", n = 8)" in sentence
    assert "not shown to be better" in by_chance["sentences"][0]


def test_find_best_run_compares_on_the_datasets_that_all_runs_have():
    tasks = make_tasks(0.1, 0.01)
    tasks = tasks[(tasks.method == "full") | (tasks.dataset != "d0")]
    assert find_best_run(tasks, "accuracy").n == 7
    assert find_best_run(tasks.assign(accuracy=np.nan), "accuracy") is None
    # The probe has no change on other tasks, so it does not prevent the comparison of the others.
    probe = tasks.head(1).assign(method="probe", dataset="elsewhere", ood_change=np.nan)
    answer = make_overview_answers(pd.concat([tasks, probe]), make_statistics(iimm=[NOT_SHOWN]))[-1]
    assert answer["answer"] == "No dataset was used for fine-tuning by every method of every model."
    assert answer["sentences"][0].startswith("For the least forgetting: full on m")


def test_summarize_findings_counts_votes():
    cells = [(1, "a", "for"), (1, "a", "for"), (2, "a", "against"), (2, "b", "open")]
    evidence = pd.DataFrame(
        [{"finding": f, "part": p, "vote": vote, "estimate": 0.5, "low": 0.1, "high": 0.9}
         for f, p, vote in cells]
    )  # fmt: skip
    findings = {finding["finding"]: finding for finding in summarize_findings(evidence)}
    assert findings[1]["verdict"] == "confirmed" and findings[1]["votes"] == "2 for"
    assert findings[2]["verdict"] == "refuted" and findings[2]["votes"] == "1 against · 1 open"
    assert findings[3]["verdict"] == "undecided" and findings[3]["votes"] == "nothing to compare"
    assert sum(len(finding["parts"]) for finding in findings.values()) == len(PARTS)
