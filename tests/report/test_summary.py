"""The report's answers: said to be shown only where they are."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from foretune.analysis.findings import PARTS
from foretune.analysis.outcomes import GAIN
from foretune.report.summary import best_run, finding_answers, overview_answers, predict_answer


def rows(**holm) -> pd.DataFrame:
    """Statistics of gain on three models: measure -> corrected p and rho of each model."""
    return pd.DataFrame([
        {"model": f"m{i}", "method": "full", "measure": name, "outcome": GAIN, "n": 9,
         "spearman": rho, "spearman_low": rho - 0.2, "spearman_high": rho + 0.2,
         "p_permutation": p / 10, "p_holm": p}
        for name, each in holm.items() for i, (p, rho) in enumerate(each)
    ])  # fmt: skip


NO, YES, BACK = (0.6, 0.4), (0.01, 0.9), (0.02, -0.85)


def test_nothing_is_shown_where_nothing_is():
    found = predict_answer(rows(iimm=[NO] * 3, sfda=[NO] * 3), GAIN)
    assert found["answer"].startswith("Not shown: no measure predicts the gain in any of the 3")
    assert (
        "ρ = 0.400 (95% interval 0.200 to 0.600; permutation p = 0.06, 0.6 after"
        in found["said"][0]
    )
    assert "n = 9" in found["said"][0]
    assert found["said"][-1].startswith("IIMM’s correlation is shown in 0 of 3 pairs")


def test_a_measure_that_is_shown_for_most_is_the_answer():
    found = predict_answer(rows(iimm=[NO, NO, YES], sfda=[YES, BACK, NO]), GAIN)
    assert found["answer"] == "sfda, in 2 of 3 pairs of model and method (ρ −0.850 to 0.900)."
    assert "shown in 1 of 3 pairs" in found["said"][-1]


def test_one_of_many_is_not_in_general():
    found = predict_answer(rows(iimm=[NO, NO, YES], sfda=[NO] * 3), GAIN)
    assert found["answer"].startswith("Not shown in general; at best iimm, in 1 of 3 pairs")


def test_an_outcome_that_was_not_tested_has_no_answer():
    assert predict_answer(rows(iimm=[NO]), "ood_change") is None
    assert predict_answer(rows(iimm=[(np.nan, np.nan)]), GAIN) is None


def tasks(shift: float, noise: float) -> pd.DataFrame:
    """Lora is better than full by shift; and by noise better and worse in turn."""
    rng = np.random.default_rng(0)
    accuracy = rng.uniform(0.4, 0.8, 8)
    made = {"full": accuracy, "lora": accuracy + shift + noise * np.tile([1, -1], 4)}
    return pd.concat([
        pd.DataFrame({"model": "m", "method": method, "dataset": [f"d{i}" for i in range(8)],
                      "accuracy": values, GAIN: values / 2, "ood_change": -values})
        for method, values in made.items()
    ])  # fmt: skip


def test_the_best_run_has_its_lead_with_scipys_interval():
    some = tasks(0.1, 0.01)
    found = best_run(some, "accuracy")
    wide = some.pivot(index="dataset", columns="method", values="accuracy")
    low, high = stats.ttest_rel(wide.lora, wide.full).confidence_interval()
    assert found["run"] == ("m", "lora") and found["second"] == ("m", "full")
    assert (found["low"], found["high"]) == pytest.approx((low, high))


def test_what_leads_by_chance_is_not_shown_to_be_better():
    clear, level = (
        overview_answers(tasks(*by), rows(iimm=[NO]))[-1] for by in ((0.1, 0.01), (0.001, 0.1))
    )
    assert "lora on m has the highest mean test accuracy" in clear["answer"]
    assert "not shown to be better" not in clear["said"][0] and ", n = 8)" in clear["said"][0]
    assert "not shown to be better" in level["said"][0]


def test_a_method_that_lacks_a_dataset_is_compared_on_the_others():
    some = tasks(0.1, 0.01)
    some = some[(some.method == "full") | (some.dataset != "d0")]
    assert best_run(some, "accuracy")["n"] == 7
    assert best_run(some.assign(accuracy=np.nan), "accuracy") is None
    # Of a probe no change on other tasks is known, so that the two others may still be compared.
    probe = some.head(1).assign(method="probe", dataset="elsewhere", ood_change=np.nan)
    apart = overview_answers(pd.concat([some, probe]), rows(iimm=[NO]))[-1]
    assert apart["answer"] == "No dataset was tuned by all methods of all models."
    assert apart["said"][0].startswith("For the least forgetting: full on m")


def test_findings_have_their_votes():
    cells = [(1, "a", "for"), (1, "a", "for"), (2, "a", "against"), (2, "b", "open")]
    evidence = pd.DataFrame(
        [{"finding": f, "part": p, "vote": vote, "estimate": 0.5, "low": 0.1, "high": 0.9}
         for f, p, vote in cells]
    )  # fmt: skip
    found = {each["finding"]: each for each in finding_answers(evidence)}
    assert found[1]["verdict"] == "confirmed" and found[1]["votes"] == "2 for"
    assert found[2]["verdict"] == "refuted" and found[2]["votes"] == "1 against · 1 open"
    assert found[3]["verdict"] == "undecided" and found[3]["votes"] == "nothing to compare"
    assert sum(len(each["parts"]) for each in found.values()) == len(PARTS)
