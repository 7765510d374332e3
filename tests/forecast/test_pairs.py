"""Forecasts of the pairs that a half-done study lacks, from the dataset on other models."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import forked
from checkout import ROOT
from foretune.analysis.missing import tabulate_missing
from foretune.analysis.outcomes import GAIN
from foretune.analysis.pilots import read_pilots
from foretune.analysis.study_tables import StudyFiles, StudyTasks, tabulate_tasks
from foretune.forecast.candidates import MEAN, Candidate
from foretune.forecast.other_models import add_others, fit_levels, fit_pair_forecasters
from foretune.forecast.pairs import forecast_pairs, list_missing
from foretune.forecast.text import describe_pairs
from foretune.report.pairs_page import build_pairs_page

OTHERS = Candidate(("others_accuracy",))


def make_study(n=12, models="abc", share=1.0, seed=0) -> pd.DataFrame:
    """Return tasks of three models: a share of what is special about a dataset is common to all."""
    rng, rows = np.random.default_rng(seed), []
    for dataset in range(n):
        common = rng.normal(0, 0.1)
        for number, model in enumerate(models):
            own = rng.normal(0, 0.1)
            accuracy = 0.6 + 0.1 * number + share * common + (1 - share) * own
            rows.append({
                "model": model, "method": "full", "dataset": f"d{dataset}", "n_test": 400,
                "run": f"{model}/full", "accuracy": accuracy + rng.normal(0, 0.01),
                "ood_change": rng.normal(-0.1, 0.02), "shifted_change": np.nan, "wise_ft": 1.0,
                "zero_shot_accuracy": 0.2, "iimm": rng.uniform(),
            })  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.assign(**{GAIN: (frame.accuracy - 0.2) / 0.8})


def as_study(tasks: pd.DataFrame, datasets: int = 12) -> StudyTasks:
    keys = [(model, f"d{d}") for model in "abc" for d in range(datasets)]
    outcomes = pd.DataFrame(keys, columns=["model", "evaluated_on"])
    outcomes = outcomes.assign(method="zero_shot", split="test", accuracy=0.2)
    measures = pd.DataFrame(keys, columns=["model", "dataset"]).assign(n_train=90, iimm=0.5)
    missing, seeds = tabulate_missing([]), pd.DataFrame()
    return StudyTasks(outcomes, tasks, measures, ["iimm"], [], [], read_pilots([]), missing, seeds)


def test_add_others_takes_other_models_and_prefers_the_same_method():
    rows = [("a", "full", "d", 0.9), ("b", "full", "d", 0.5), ("c", "lora", "d", 0.1),
            ("a", "full", "e", 0.7), ("b", "full", "e", 0.3), ("c", "lora", "e", 0.3)]  # fmt: skip
    study = pd.DataFrame(rows, columns=["model", "method", "dataset", "accuracy"])
    study["run"], study["ood_change"] = study.model + "/" + study.method, study.accuracy
    added = add_others(study, study, "accuracy")
    # Of b alone for a, and of a alone for b; c has no other model with its method.
    assert added.others.tolist() == [1, 1, 2, 1, 1, 2]
    assert added.others_accuracy.tolist() == pytest.approx([0.1, 0.1, 0.1, -0.1, -0.1, -0.1])
    # What methods forget is not compared.
    assert add_others(study, study, "ood_change").others.tolist() == [1, 1, 0, 1, 1, 0]
    new = pd.DataFrame({"model": ["a"], "method": ["full"], "dataset": ["unknown"]})
    assert add_others(new, study, "accuracy")[["others", "others_accuracy"]].values.tolist() == [
        [0, 0]
    ]


def test_fit_levels_does_not_take_easy_datasets_for_a_good_model():
    levels, datasets = np.array([0.3, 0.5, 0.4]), np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
    table = levels + datasets[:, None]
    table[:2, 0] = table[3:, 1] = np.nan
    fitted = fit_levels(table)
    assert fitted - fitted.mean() == pytest.approx(levels - levels.mean(), abs=0.005)


def test_fit_pair_forecasters_takes_the_dataset_on_other_models():
    forecaster = fit_pair_forecasters(make_study(), "accuracy")["full"]
    assert forecaster.chosen == OTHERS and forecaster.error < 0.025
    assert forecaster.errors[MEAN] > 2.5 * forecaster.error


def test_fit_pair_forecasters_stays_with_the_mean_if_models_have_nothing_in_common():
    chosen = [fit_pair_forecasters(make_study(share=0, seed=seed), "accuracy")["full"].chosen
              for seed in range(6)]  # fmt: skip
    assert chosen.count(MEAN) >= 5


def test_forecast_of_a_left_out_pair_does_not_depend_on_its_outcome():
    study = make_study()
    changed = study.copy()
    changed.loc[4, "accuracy"] = 0.05
    before, after = (fit_pair_forecasters(s, "accuracy")["full"] for s in (study, changed))
    assert after.left_out[4] == before.left_out[4]
    assert not np.allclose(np.delete(after.left_out, 4), np.delete(before.left_out, 4))


def test_forecast_pairs_forecasts_what_has_no_outcome(tmp_path):
    tasks = make_study()
    truth = tasks.set_index(["model", "dataset"]).accuracy
    tasks = tasks[(tasks.model != "c") | ~tasks.dataset.isin(["d0", "d1"])]
    tasks = tasks[tasks.dataset != "d2"]  # nobody has it
    runs, datasets = [(model, "full") for model in "abc"], [f"d{d}" for d in range(12)]
    missing = list_missing(tasks, runs, datasets)
    assert missing == [("a", "full", "d2"), ("b", "full", "d2"), *(("c", "full", f"d{d}")
                       for d in range(3))]  # fmt: skip
    diverged = {"model": "a", "method": "full", "dataset": "d2", "diverged": True}
    study = replace(as_study(tasks), missing=tabulate_missing([diverged]))
    tables = forecast_pairs(study, runs, datasets)
    accuracies = tables.pairs[tables.pairs.outcome == "accuracy"].set_index(["model", "dataset"])
    assert accuracies.left_out.to_dict() == {
        ("a", "d2"): "dataset", ("b", "d2"): "dataset", ("c", "d0"): "pair", ("c", "d1"): "pair",
        ("c", "d2"): "dataset",
    }  # fmt: skip
    for key in (("c", "d0"), ("c", "d1")):
        row = accuracies.loc[key]
        assert row.expected == pytest.approx(truth[key], abs=0.06)
        assert row.low < truth[key] < row.high and row.n == 9 and row.n_train == 90
    gains = tables.pairs[tables.pairs.outcome == GAIN]
    assert gains.expected.to_numpy() == pytest.approx((accuracies.expected.to_numpy() - 0.2) / 0.8)
    text = describe_pairs(tables)
    assert text.startswith("5 of the study's combinations of dataset, model and method have no")
    assert "The forecast of 2 accuracies may use the accuracy of other models" in text
    assert "Warning for a full: d2 was fine-tuned, but every trial diverged: lower" in text
    noted = tables.pairs[tables.pairs.note.str.contains("diverged")]
    assert set(zip(noted.model, noted.dataset, strict=True)) == {("a", "d2")}
    for name in ("pairs", "pair_candidates"):
        getattr(tables, name).to_parquet(tmp_path / f"{name}.parquet")
    build_pairs_page(tmp_path, tmp_path / "pairs.html")
    page = (tmp_path / "pairs.html").read_text()
    assert "5 pairs without an outcome" in page and "5 of the study" in page


def test_forecast_pairs_of_too_small_or_complete_studies_say_so():
    tasks, runs = make_study(n=3), [(model, "full") for model in "abc"]
    tables = forecast_pairs(as_study(tasks), runs, ["d0", "d1", "d2", "d3"])
    assert tables.pairs.expected.isna().all()
    assert "Too little is known to forecast 3 of them." in describe_pairs(tables)
    assert "too few datasets for a forecast" in describe_pairs(tables)
    complete = forecast_pairs(as_study(tasks), runs, ["d0", "d1", "d2"])
    assert complete.pairs.empty and "nothing is to forecast" in describe_pairs(complete)


def test_published_accuracies_of_clips_are_forecast_from_each_other():
    """Three CLIPs on 20 tasks: one from the others, to two points; the mean misses by seven."""
    csv = ROOT / "resources/public/outcomes.csv"
    tasks = tabulate_tasks(StudyFiles([], [], [], [], [], outcomes=csv)).tasks
    tasks["run"] = tasks.model + "/" + tasks.method
    forecaster = fit_pair_forecasters(tasks, "accuracy")["full"]
    assert forecaster.chosen == OTHERS and forecaster.n == 20
    assert forecaster.error < 0.02 and forecaster.errors[MEAN] > 0.06


def test_forecast_without_images_or_trials_explains_itself_in_one_line(tmp_path):
    for name in ("config.yaml", "resources"):
        (tmp_path / name).symlink_to(ROOT / name)
    script = ROOT / "workflow_scripts/forecast_rest.py"
    done = forked.run(script, "--study", "config.yaml", cwd=tmp_path)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "give the images: make forecast DATA=path/to/folder" in done.stderr
