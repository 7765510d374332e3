"""Forecasts from a fabricated study, and studies and folders that allow none."""

import dataclasses
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from PIL import Image

import forked
from checkout import ROOT
from foretune.analysis.outcomes import GAIN
from foretune.analysis.pilots import read_pilots
from foretune.core.config import check_config
from foretune.core.errors import ForetuneError
from foretune.core.parquet import write_parquet
from foretune.forecast.forecast import forecast_datasets
from foretune.forecast.inputs import read_new_tasks
from foretune.forecast.rehearsal import PREDICTORS
from foretune.forecast.text import describe_forecasts

CURVE = [{"n": n, "accuracy": a} for n, a in ((4, 0.4), (8, 0.55), (16, 0.64), (32, 0.7))]


def make_predictors(zero_shot, probe) -> dict:
    values = (zero_shot, probe - 0.1, probe - 0.2, probe - 0.05, probe,
              (probe - zero_shot) / (1 - zero_shot))  # fmt: skip
    return dict(zip(PREDICTORS, values, strict=True))


def make_tasks(n=10, seed=0):
    """Return tasks of two models and methods, whose accuracy is that of the hidden probe.

    Model b forgets more, and a linear probe has no ood_change.
    """
    rng, rows = np.random.default_rng(seed), []
    for model, forgotten in (("a", 0.1), ("b", 0.3)):
        for dataset in range(n):
            zero_shot, probe = rng.uniform(0.1, 0.5), rng.uniform(0.6, 0.95)
            for method in ("full", "linear_probe"):
                accuracy = float(np.clip(probe + rng.normal(0, 0.02), 0, 1))
                change = forgotten * (zero_shot - 0.8) + rng.normal(0, 0.01)
                rows.append({
                    "model": model, "method": method, "dataset": f"d{dataset}", "n_test": 400,
                    "iimm": rng.uniform(0.2, 0.5), "zero_shot_accuracy": zero_shot,
                    "accuracy": accuracy, GAIN: (accuracy - zero_shot) / (1 - zero_shot),
                    "ood_change": change if method == "full" else np.nan,
                    "shifted_change": np.nan, **make_predictors(zero_shot, probe),
                })  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def study(tmp_path):
    return write_study(make_tasks(), tmp_path / "analysis")


def write_study(frame, folder):
    table = pa.Table.from_pandas(frame, preserve_index=False)
    weights = {"a": "sha of a", "b": "sha of b"}
    write_parquet(table, folder / "tasks.parquet", {"measures": ["iimm"], "weights": weights})
    return folder


def make_new_tasks(folder, models="a", dataset="new", probe=0.8, fitted=(), **facts):
    """Write the files of new datasets, and read them: measures, rehearsal, and tests."""
    measures, rehearsals, tests = [], [], []
    for model in models:
        common = {"model": model, "dataset": dataset, "n": 40, "weights": f"sha of {model}"} | facts
        for kind, paths, content in (
            ("measures", measures, {"measures": {"iimm": 0.3}}),
            ("rehearsal", rehearsals,
             {"measures": make_predictors(0.25, probe), "learning_curve": CURVE}),
        ):  # fmt: skip
            paths.append(folder / f"{model}-{dataset}-{kind}.json")
            paths[-1].write_text(json.dumps(common | content))
        rows = [{"model": model, "method": method, "evaluated_on": dataset, "split": "test",
                 "accuracy": accuracy, "n": 50}
                for method, accuracy in (("zero_shot", 0.26), *fitted)]  # fmt: skip
        tests.append(folder / f"{model}-{dataset}-tests.parquet")
        pd.DataFrame(rows).to_parquet(tests[-1])
    return read_new_tasks(measures, rehearsals, tests)


def add_pilots(folder, new, steps=100, reached=0.9):
    """Return new tasks with a pilot of the method full."""
    path = folder / "pilot.json"
    pilots = []
    for task in new:
        pilot = {"model": task.model, "method": "full", "dataset": task.dataset}
        path.write_text(
            json.dumps(pilot | {"accuracy": reached, "steps_asked": steps, "seconds": 9})
        )
        pilots.append(dataclasses.replace(task, pilots=read_pilots([path])))
    return pilots


def test_forecast_datasets_takes_a_pilot_if_the_study_has_pilots_of_as_many_steps(tmp_path):
    tasks = make_tasks()
    probes = ["probe_accuracy", "hidden_probe_accuracy"]
    tasks[probes] = np.random.default_rng(5).uniform(0.2, 0.9, (len(tasks), 2))
    full = tasks.method == "full"
    tasks.loc[full, "pilot_accuracy"] = tasks.accuracy[full] - 0.05
    tasks.loc[full, "pilot_steps"] = 100.0
    study, new = write_study(tasks, tmp_path / "analysis"), make_new_tasks(tmp_path)

    def forecast(tasks):
        rows = forecast_datasets(study, tasks, 0.5).forecasts.query("outcome == 'accuracy'")
        return rows.set_index("method").loc["full"]

    tables = forecast_datasets(study, add_pilots(tmp_path, new), 0.0)
    assert "Its pilot took 9 seconds." in " ".join(describe_forecasts(tables).split())
    used = forecast(add_pilots(tmp_path, new))
    assert "pilot_accuracy" in used.predictor and used.note == ""
    assert used.expected == pytest.approx(0.95, abs=0.05) and used.loo_error < 0.06
    for steps, tasks in ((None, new), (30, add_pilots(tmp_path, new, steps=30))):
        without = forecast(tasks)
        assert "pilot" not in without.predictor and without.loo_error > 1.5 * used.loo_error
        noted = "a pilot reached 0.90, which the forecast does not use: the study's pilots have 100"
        assert (noted in without.note) == (steps is not None)


def test_forecast_datasets_shows_a_pilot_that_the_study_cannot_judge(study, tmp_path):
    tables = forecast_datasets(study, add_pilots(tmp_path, make_new_tasks(tmp_path)), 0.5)
    notes = tables.forecasts.set_index("method").note
    assert "the study has no pilots to compare it with" in notes["full"].iloc[0]
    assert notes["linear_probe"].iloc[0] == ""


def test_forecast_datasets_makes_one_statement_of_accuracy_and_gain(study, tmp_path):
    tables = forecast_datasets(study, make_new_tasks(tmp_path), 0.5)
    cells = tables.forecasts.query("method == 'full'").set_index("outcome")
    accuracy, gain = cells.loc["accuracy"], cells.loc[GAIN]
    assert accuracy.predictor == "hidden_probe_accuracy itself"
    assert accuracy.expected == pytest.approx(0.8) and accuracy.zero_shot == 0.26
    for limit in ("expected", "low", "high"):
        assert gain[limit] == pytest.approx((accuracy[limit] - 0.26) / (1 - 0.26))
    assert 0.7 < accuracy.low < 0.8 < accuracy.high < 0.9 and accuracy.n == 10
    assert accuracy.loo_error < 0.03 < accuracy.loo_mean_error
    change = cells.loc["ood_change"]
    assert "train_zero_shot_accuracy" in change.predictor
    assert change.expected == pytest.approx(0.1 * (0.25 - 0.8), abs=0.03)
    assert np.isnan(cells.expected["shifted_change"])  # the study has no shifted test


def test_forecast_datasets_reports_what_was_fitted_as_measured(study, tmp_path):
    new = make_new_tasks(tmp_path, fitted=[("linear_probe", 0.62)])
    tables = forecast_datasets(study, new, 0)
    row = tables.forecasts.query("method == 'linear_probe' and outcome == 'accuracy'").iloc[0]
    assert row.measured and row.expected == 0.62 and row.predictor == "measured"
    assert (
        row.low < 0.62 < row.high and not tables.forecasts.query("method == 'full'").measured.any()
    )


def test_forecast_datasets_notes_predictors_outside_the_studys_range(study, tmp_path):
    frame = make_tasks()
    frame["train_zero_shot_accuracy"] += 0.5  # so that the new task's, 0.25, lies outside
    shifted = write_study(frame, tmp_path / "shifted")
    for folder, note in (
        (study, ""),
        (shifted, "train_zero_shot_accuracy lies outside the study's range"),
    ):
        tables = forecast_datasets(folder, make_new_tasks(tmp_path), 0.5)
        change = tables.forecasts.query("method == 'full' and outcome == 'ood_change'").iloc[0]
        assert "train_zero_shot_accuracy" in change.predictor and change.note == note


def test_forecast_datasets_ranks_by_accuracy_and_what_is_forgotten(study, tmp_path):
    new = make_new_tasks(tmp_path, models="ab")
    ranking = forecast_datasets(study, new, 0.25).rankings
    full = ranking[ranking.method == "full"]
    assert list(full.score) == pytest.approx(list(0.75 * full.accuracy + 0.25 * full.ood_change))
    assert list(full.model) == ["a", "b"] and list(full["rank"]) == [1, 2]
    assert full.behind.iloc[0] == 0 and full.behind_low.iloc[1] < full.behind.iloc[1]
    assert full.behind.iloc[1] == pytest.approx(full.score.iloc[0] - full.score.iloc[1])
    # A probe's forgetting is unknown, so it has a rank only if forgetting has no weight.
    probes = ranking[ranking.method == "linear_probe"]
    assert probes["rank"].isna().all() and probes.note.str.contains("not ranked").all()
    assert forecast_datasets(study, new, 0).rankings["rank"].notna().all()


def test_forecast_datasets_tells_a_clear_lead(study, tmp_path):
    """Only the ranking of a much better run is beyond the errors of the forecasts."""
    new = make_new_tasks(tmp_path, "a", probe=0.95) + make_new_tasks(tmp_path, "b", probe=0.65)
    ranking = forecast_datasets(study, new, 0.25).rankings.query("method == 'full'")
    assert list(ranking.model) == ["a", "b"] and ranking.behind_low.iloc[1] > 0


def test_forecast_datasets_extrapolates_the_learning_curve(study, tmp_path):
    tables = forecast_datasets(study, make_new_tasks(tmp_path), 0.5)
    curve = tables.learning.query("method == 'full'").set_index("times")
    assert list(curve.n) == [40, 80, 160, 320]
    assert curve.expected[1] == curve.low[1] == curve.high[1] == pytest.approx(0.8)
    assert (curve.expected.diff().dropna() > 0).all() and (
        curve.low[[2, 4, 8]] < curve.low[1]
    ).all()
    assert (curve.high >= curve.expected).all() and curve.high[8] < 1


def test_forecast_datasets_notes_why_there_is_no_forecast(tmp_path):
    few = write_study(make_tasks(n=3), tmp_path / "few")
    tables = forecast_datasets(few, make_new_tasks(tmp_path, models="ab"), 0.5)
    assert tables.forecasts.expected.isna().all() and tables.rankings["rank"].isna().all()
    row = tables.forecasts.query("method == 'full' and outcome == 'accuracy'").iloc[0]
    assert "n = 3: too few datasets" in row.note
    text = describe_forecasts(tables)
    assert "No model and method can be ranked" in text and "Expect" not in text
    assert "too few datasets for a forecast" in " ".join(text.split())


def test_forecast_datasets_leaves_out_a_dataset_of_the_same_name(study, tmp_path):
    tables = forecast_datasets(study, make_new_tasks(tmp_path, dataset="d0"), 0.5)
    row = tables.forecasts.query("method == 'full' and outcome == 'accuracy'").iloc[0]
    assert row.n == 9 and "same name is left out" in row.note


def test_forecast_datasets_names_the_study_in_errors(study, tmp_path):
    with pytest.raises(ForetuneError, match=r"new: model a is not the one of .*analysis"):
        forecast_datasets(study, make_new_tasks(tmp_path, weights="other"), 0.5)
    with pytest.raises(ForetuneError, match=r"analysis: has no model c; its models: a, b"):
        forecast_datasets(study, make_new_tasks(tmp_path, models="c"), 0.5)
    with pytest.raises(ForetuneError, match=r"nowhere/tasks\.parquet: no such file"):
        forecast_datasets(tmp_path / "nowhere", make_new_tasks(tmp_path), 0.5)
    old = write_study(make_tasks().drop(columns="knn_accuracy"), tmp_path / "old")
    with pytest.raises(ForetuneError, match=r"tasks\.parquet: the study lacks knn_accuracy, which"):
        forecast_datasets(old, make_new_tasks(tmp_path), 0.5)
    unsigned = tmp_path / "unsigned"
    write_parquet(pa.Table.from_pandas(make_tasks()), unsigned / "tasks.parquet", {})
    with pytest.raises(ForetuneError, match=r"does not record the weights of model a; run"):
        forecast_datasets(unsigned, make_new_tasks(tmp_path), 0.5)


def test_describe_forecasts_answers_first(study, tmp_path):
    new = make_new_tasks(tmp_path, models="ab", fitted=[("linear_probe", 0.62)])
    tables = forecast_datasets(study, new, 0.25)
    lines = describe_forecasts(tables).splitlines()
    assert lines[0] == "new: forecast from the embeddings of 40 training images"
    answer = " ".join(lines[2 : lines.index("", 2)])
    assert answer.startswith("Expect an accuracy of 0.80 (0.7")
    assert "by a with full, from 0.26 zero-shot; accuracy on other tasks changes by −0.0" in answer
    assert "not shown to be better than the next, b with full" in answer
    assert "Twice as many images would add 0.0" in answer
    assert "10 datasets was forecast from the others" in answer and "IIMM" in answer
    assert "Ranked by 0.75 × accuracy + 0.25 × change on other tasks." in lines
    assert any("linear_probe" in line and line.endswith("measured") for line in lines)
    measured = forecast_datasets(study, make_new_tasks(tmp_path, fitted=[("full", 0.9)]), 0)
    assert "This accuracy is not a forecast" in describe_forecasts(measured)


def test_describe_forecasts_has_the_notes_on_images_and_captions(study, tmp_path):
    new = make_new_tasks(tmp_path, notes=["the captions of 3 classes are the same"])
    text = describe_forecasts(forecast_datasets(study, new, 0.5), {"new": ["left out: .heic 5"]})
    assert "Note on new: left out: .heic 5." in text
    warning = next(line for line in text.splitlines() if line.startswith("Warning for a full"))
    assert warning.endswith("the captions of 3 classes are the same.")


# ---------------------------------------------------------------- a folder of images


def make_images(folder, classes=("crow", "jay"), count=20, side=8):
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (side, side, 3), np.uint8)).save(file, "PNG")
            (folder / name / f"{i}.png").write_bytes(file.getvalue())
    return folder


def forecast_folder(data):
    script = "workflow_scripts/forecast_folder.py"
    return forked.run(script, "--study", "config.yaml", "--data", data)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: None, "no such file or folder"),
        (lambda data: data.mkdir(), "at least two; found []"),
        (lambda data: make_images(data, count=0), "no images in its train split"),
        (lambda data: make_images(data, ["crow"]), "at least two; found ['crow']"),
        (lambda data: data.write_text("a file"), "no such folder"),
    ],
)
def test_forecast_folder_reports_a_bad_folder_in_one_line(tmp_path, spoil, message):
    data = tmp_path / "birds"
    spoil(data)
    done = forecast_folder(data)
    assert done.returncode == 1 and message in done.stderr and str(data) in done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.count(str(data)) == 1
    assert " object at 0x" not in done.stderr


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Return a function that gives the config and the command that `make forecast` would run."""
    import forecast_folder as script

    called = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execv", lambda program, command: called.append(command))

    def study_for(data, *more, models=("a",), **forecast):
        here = {"folder": str(tmp_path)}
        study = {"models": dict.fromkeys(models, here), "datasets": {"d": here}}
        study |= {"methods": {"full": {"learning_rate": [1]}}, "forecast": forecast}
        Path("study.yaml").write_text(yaml.safe_dump(study))
        arguments = ["", "--data", str(data), "--study", "study.yaml", "--cores", "2", *more]
        monkeypatch.setattr(sys, "argv", arguments)
        script.work()
        made = yaml.safe_load(Path(called[-1][-1]).read_text())
        assert made["datasets"] == study["datasets"]
        return check_config(made)["forecast"], called[-1]

    return study_for


def test_forecast_folder_uses_existing_results(ask, tmp_path):
    write_study(make_tasks(), tmp_path / "results/analysis")
    data = make_images(tmp_path / "meine Vögel")
    made, command = ask(data)
    assert command[-2:] == ["--study", "results/forecast/study.yaml"] and "--cores" in command
    assert made["datasets"]["meine_Vögel"]["folder"] == str(data)
    # The path is absolute, because Snakemake would rerun the study for a file in results/.
    assert made["study"] == str(tmp_path / "results")
    assert list(ask(make_images(tmp_path / "d"))[0]["datasets"]) == [
        "d_"
    ]  # the study has a dataset d
    made, _ = ask(data, "--caption", "a sketch of a {}", "--weight", "0.25")
    assert made["weight"] == 0.25
    assert made["datasets"]["meine_Vögel"]["caption"] == "a sketch of a {}"
    with pytest.raises(ForetuneError, match=r"caption: 'a bird' needs a \{\} where the class"):
        ask(data, "--caption", "a bird")


def test_forecast_folder_says_that_a_study_without_pilots_cannot_use_one(ask, tmp_path, capsys):
    tasks = make_tasks()
    write_study(tasks, tmp_path / "results/analysis")
    made, _ = ask(make_images(tmp_path / "birds"), "--pilot", "25")
    assert made["pilot"] == {"steps": 25}
    assert "The study has no pilots of 25 steps" in capsys.readouterr().out
    write_study(tasks.assign(pilot_steps=25.0), tmp_path / "results/analysis")
    ask(tmp_path / "birds", "--pilot", "25")
    assert "has no pilots" not in capsys.readouterr().out


def test_forecast_folder_falls_back_to_the_bundled_study(ask, tmp_path):
    data = make_images(tmp_path / "birds")
    bundled = ROOT / "resources/mini/study"
    assert ask(data, models=["clip_mini", "coca_mini"])[0]["study"] == str(bundled)
    write_study(make_tasks(), tmp_path / "results/analysis")  # a study of other models
    assert ask(data, models=["clip_mini"])[0]["study"] == str(bundled)
    with pytest.raises(
        ForetuneError, match=r"there is no completed study of a, z .* run the study first"
    ):
        ask(data, models=["a", "z"])
    assert ask(data, models=["a", "z"], study=str(bundled))[0]["study"] == str(bundled)
