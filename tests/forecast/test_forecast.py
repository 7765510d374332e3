"""Forecasts compared with numpy and statsmodels, and studies that allow no forecast."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import statsmodels.formula.api as smf
import yaml
from PIL import Image

from checkout import ROOT
from foretune.analysis.outcomes import GAIN
from foretune.core.config import check_config
from foretune.core.errors import ForetuneError
from foretune.core.parquet import write_parquet
from foretune.forecast.forecast import (
    best_rival,
    forecast_datasets,
    forecast_outcome,
    leave_one_out,
    rank_runs,
)
from foretune.forecast.text import describe_forecasts

NAMES = ["iimm", "sfda", "emms"]


def make_tasks(n=6, seed=0):
    """Return tasks of two models and methods. A probe has no ood_change; model b gains less."""
    rng = np.random.default_rng(seed)
    rows = []
    for model, slope in (("a", 1.0), ("b", 0.4)):
        measures = rng.uniform(0.2, 0.5, size=(n, 3))
        for method in ("full", "linear_probe"):
            gain = slope * measures[:, 0] + rng.normal(0, 0.05, n)
            ood = -slope * measures[:, 0] + rng.normal(0, 0.01, n)
            rows.append(pd.DataFrame(measures, columns=NAMES).assign(
                model=model, method=method, dataset=[f"d{i}" for i in range(n)],
                accuracy=0.5 + gain / 2, ood_change=ood if method == "full" else np.nan,
                **{GAIN: gain},
            ))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


@pytest.fixture
def study(tmp_path):
    return write_study(make_tasks(), tmp_path / "analysis")


def write_study(frame, folder, names=NAMES):
    table = pa.Table.from_pandas(frame, preserve_index=False)
    weights = {"a": "sha of a", "b": "sha of b"}
    write_parquet(table, folder / "tasks.parquet", {"measures": names, "weights": weights})
    return folder


def write_measures(folder, iimm=0.3, model="a", dataset="new", **facts):
    """Write the measures file of a new dataset, and return its path."""
    path = folder / f"{model}-{dataset}.json"
    details = {"iimm": {"notes": ["undefined: one class"]}} if iimm is None else {}
    path.write_text(json.dumps({
        "model": model, "dataset": dataset, "n": 40, "measures": {"iimm": iimm},
        "details": details, "weights": f"sha of {model}", **facts,
    }))  # fmt: skip
    return path


def test_forecast_datasets_agrees_with_statsmodels_prediction(study, tmp_path):
    forecasts, _ = forecast_datasets(study, [write_measures(tmp_path)], weight=0.5)
    full = make_tasks().query("model == 'a' and method == 'full'")
    for outcome in (GAIN, "accuracy", "ood_change"):
        fit = smf.ols(f"{outcome} ~ iimm", full).fit()
        theirs = fit.get_prediction(pd.DataFrame({"iimm": [0.3]})).summary_frame(alpha=0.05).iloc[0]
        row = forecasts[(forecasts.method == "full") & (forecasts.outcome == outcome)].iloc[0]
        assert row.expected == pytest.approx(theirs["mean"])
        assert (row.low, row.high) == pytest.approx((theirs.obs_ci_lower, theirs.obs_ci_upper))
        assert (row.n, row.n_train, row.iimm) == (6, 40, 0.3) and not row.clipped
        assert (row.study_low, row.study_high) == (full.iimm.min(), full.iimm.max())
        assert not row.outside and row.note == ""
        assert row.study_mean == pytest.approx(full[outcome].mean())


def test_leave_one_out_agrees_with_numpy():
    frame = make_tasks(n=5).query("model == 'b' and method == 'full'").reset_index(drop=True)
    errors, by_mean, by_rival, chosen = [], [], [], []
    for i in range(5):
        others, left_out = frame.drop(index=i), frame.loc[i]
        slope, intercept = np.polyfit(others.iimm, others[GAIN], 1)
        errors.append(abs(intercept + slope * left_out.iimm - left_out[GAIN]))
        by_mean.append(abs(others[GAIN].mean() - left_out[GAIN]))
        r2 = {name: np.corrcoef(others[name], others[GAIN])[0, 1] ** 2 for name in NAMES[1:]}
        chosen.append(max(r2, key=r2.get))
        slope, intercept = np.polyfit(others[chosen[-1]], others[GAIN], 1)
        by_rival.append(abs(intercept + slope * left_out[chosen[-1]] - left_out[GAIN]))
    result = leave_one_out(frame, GAIN, NAMES)
    assert result["loo_error"] == pytest.approx(np.mean(errors))
    assert result["loo_mean_error"] == pytest.approx(np.mean(by_mean))
    assert result["loo_rival_error"] == pytest.approx(np.mean(by_rival))
    counts = {name: chosen.count(name) for name in set(chosen)}
    assert dict(rival.split() for rival in result["loo_rivals"].split(", ")) == {
        name: str(count) for name, count in counts.items()
    }


def test_best_rival_is_chosen_without_the_dataset_that_is_left_out():
    """A measure that is best only because of one dataset is not used to forecast that dataset."""
    y = np.array([0.0, 0.1, 0.2, 0.3, 0.9])
    frame = pd.DataFrame({"dataset": list("abcde"), "iimm": [1.0, 3, 2, 5, 4], GAIN: y,
                          "sfda": [0.1, 0, 0.1, 0, 9], "emms": [0, 0.1, 0.2, 0.3, -5]})  # fmt: skip
    assert best_rival(frame[["sfda", "emms"]].to_numpy().T, y) == 0
    assert best_rival(frame[["sfda", "emms"]].to_numpy()[:4].T, y[:4]) == 1
    assert leave_one_out(frame, GAIN, NAMES)["loo_rivals"] == "sfda 4, emms 1"
    assert best_rival(np.ones((2, 5)), y) is None
    alone = leave_one_out(frame, GAIN, ["iimm"])
    assert np.isnan(alone["loo_rival_error"]) and alone["loo_error"] > 0
    frame.loc[2, "sfda"] = np.nan  # a measure that lacks a value is no rival
    assert leave_one_out(frame, GAIN, NAMES)["loo_rivals"] == "emms 5"


def test_forecast_outcome_is_clipped_to_possible_values():
    x, y = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 0.7, 0.8, 0.95])
    forecast = forecast_outcome(x, y, 0.55, GAIN)
    assert forecast["expected"] == forecast["high"] == 1 and forecast["clipped"]
    assert forecast["low"] < 1
    assert forecast_outcome(x, y - 1, -1.0, "accuracy")["low"] == 0
    assert forecast_outcome(x, y, -1.0, GAIN)["low"] < 0  # a loss has no fixed limit


def test_forecast_datasets_notes_iimm_outside_the_studys_range(study, tmp_path):
    forecasts, _ = forecast_datasets(study, [write_measures(tmp_path, iimm=0.9)], weight=0.5)
    known = forecasts[forecasts.expected.notna()]
    assert known.outside.all() and known.note.str.contains("outside the study's range").all()


def test_rank_runs_follows_the_weight(study, tmp_path):
    paths = [write_measures(tmp_path, model=model) for model in "ab"]
    forecasts, ranking = forecast_datasets(study, paths, weight=0.25)
    assert len(forecasts) == 2 * 2 * 3
    full = ranking[ranking.method == "full"]
    gain, change = full[GAIN], full.ood_change
    assert list(full.score) == pytest.approx(list(0.75 * gain + 0.25 * change))
    # Model a gains more; model b forgets less.
    assert list(ranking.model[:2]) == ["a", "b"] and list(ranking["rank"][:2]) == [1, 2]
    ranking = rank_runs(forecasts, 1)
    assert list(ranking.model[:2]) == ["b", "a"]
    assert list(ranking.score[:2]) == list(ranking.ood_change[:2])
    # A probe's forgetting is unknown, so it has a rank only if forgetting has no weight.
    probes = ranking[ranking.method == "linear_probe"]
    assert probes["rank"].isna().all() and probes.note.str.contains("not ranked").all()
    assert rank_runs(forecasts, 0)["rank"].notna().all()


def test_forecast_datasets_notes_why_there_is_no_forecast(study, tmp_path):
    frame = make_tasks()
    frame.loc[frame.model == "b", "iimm"] = 0.3
    frame = frame[(frame.model == "b") | frame.dataset.isin(["d0", "d1", "d2"])]
    few = write_study(frame, tmp_path / "few")
    paths = [write_measures(tmp_path, model=model) for model in "ab"]
    forecasts, ranking = forecast_datasets(few, paths, weight=0.5)
    assert forecasts.expected.isna().all() and ranking["rank"].isna().all()
    notes = forecasts[forecasts.outcome == GAIN].set_index(["model", "method"]).note
    assert "n = 3: too few" in notes["a", "full"] and "the same for every" in notes["b", "full"]


def test_forecast_datasets_leaves_out_a_dataset_of_the_same_name(study, tmp_path):
    forecasts, _ = forecast_datasets(study, [write_measures(tmp_path, dataset="d0")], weight=0.5)
    row = forecasts[(forecasts.method == "full") & (forecasts.outcome == GAIN)].iloc[0]
    assert row.n == 5 and "left out" in row.note


def test_forecast_datasets_refuses_a_model_with_other_weights(study, tmp_path):
    other = write_measures(tmp_path, weights="other")
    with pytest.raises(ForetuneError, match=r"a-new\.json: model a is not the one of .*analysis"):
        forecast_datasets(study, [other], weight=0.5)
    old = tmp_path / "old"
    write_parquet(pa.Table.from_pandas(make_tasks()), old / "tasks.parquet", {"measures": NAMES})
    with pytest.raises(ForetuneError, match=r"old does not record the weights of model a; run"):
        forecast_datasets(old, [write_measures(tmp_path)], weight=0.5)


def test_describe_forecasts_names_the_best_first_and_warns(study, tmp_path):
    paths = [write_measures(tmp_path, iimm=0.9, model=model) for model in "ab"]
    forecasts, ranking = forecast_datasets(study, paths, weight=0.25)
    text = describe_forecasts(forecasts, ranking)
    best = ranking.iloc[0]
    assert text.startswith(
        "new: forecast from the zero-shot embeddings of 40 training images\n\n"
        f"Best choice: model {best.model}, method full\n"
    )
    cells = forecasts.set_index(["model", "method", "outcome"])
    gain = cells.loc[(best.model, "full", GAIN)]
    assert f"  gain over zero-shot error  {gain.expected:.2f}      {gain.low:.2f} to " in text
    assert f"  {gain.loo_error:.2f} if forecast from IIMM" in text
    assert f"  {gain.loo_mean_error:.2f} if forecast as the mean" in text
    assert "Warning for a, b: IIMM lies outside the study's range" in text
    assert "linear_probe" in text
    assert "Ranked by 0.75 × gain + 0.25 × change on other tasks." in text
    assert "A row without a rank lacks an outcome" in text
    no_better = "IIMM forecasts no better than a baseline"
    assert no_better in describe_forecasts(forecasts.assign(loo_error=9.0), ranking)
    assert no_better not in describe_forecasts(forecasts.assign(loo_error=0.0), ranking)
    few = write_study(make_tasks(n=3), tmp_path / "few")
    text = describe_forecasts(*forecast_datasets(few, paths, weight=0.5))
    assert "Best choice" not in text and "There is no best choice" in text
    assert "Warning for a, b: n = 3: too few datasets" in text


def test_forecast_datasets_names_the_file_in_errors(study, tmp_path):
    with pytest.raises(
        ForetuneError, match=r"a-new\.json: iimm is not known \(undefined: one class\), so"
    ):
        forecast_datasets(study, [write_measures(tmp_path, iimm=None)], weight=0.5)
    with pytest.raises(ForetuneError, match=r"c-new\.json: .* has no model c; its models: a, b"):
        forecast_datasets(study, [write_measures(tmp_path, model="c")], weight=0.5)
    with pytest.raises(ForetuneError, match=r"nowhere/tasks\.parquet: no such file"):
        forecast_datasets(tmp_path / "nowhere", [write_measures(tmp_path)], weight=0.5)
    bare = write_study(make_tasks(), tmp_path / "bare", names=["sfda"])
    with pytest.raises(ForetuneError, match=r"tasks\.parquet: the study did not measure iimm"):
        forecast_datasets(bare, [write_measures(tmp_path)], weight=0.5)


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
    command = [sys.executable, "workflow_scripts/forecast_folder.py", "--study", "config.yaml"]
    return subprocess.run([*command, "--data", str(data)], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: None, "no such file or folder"),
        (lambda data: data.mkdir(), "at least two; found []"),
        (lambda data: make_images(data, count=0), "no images in its train split"),
        (lambda data: make_images(data, ["crow"]), "at least two; found ['crow']"),
        (
            lambda data: (make_images(data) / "jay/7.png").write_bytes(b"no"),
            "jay/7.png: not a readable",
        ),
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
    assert made["datasets"]["meine_V_gel"]["folder"] == str(data)
    # The path is absolute, because Snakemake would rerun the study for a file in results/.
    assert made["study"] == str(tmp_path / "results")
    assert list(ask(make_images(tmp_path / "d"))[0]["datasets"]) == [
        "d_"
    ]  # the study has a dataset d
    made, _ = ask(data, "--caption", "a sketch of a {}", "--weight", "0.25")
    assert made["weight"] == 0.25
    assert made["datasets"]["meine_V_gel"]["caption"] == "a sketch of a {}"
    with pytest.raises(ForetuneError, match=r"caption: 'a bird' needs a \{\} where the class"):
        ask(data, "--caption", "a bird")


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
