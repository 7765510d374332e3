"""Tests that the figures for papers draw what the tables contain."""

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from foretune.analysis.outcomes import GAIN
from foretune.report.paper_figures import (
    MAX_NAMED_DATASETS,
    draw_figures,
    draw_fits,
    draw_matrices,
    draw_trade_off,
    draw_training,
    get_runs_by_method,
    get_runs_by_model,
    read_selected_epochs,
)
from report_study import NAMES, make_study, save

MODELS = ("clip", "a $model$")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return make_study(folder, names=NAMES[:5], models=MODELS, methods=("linear_probe", "full"))


@pytest.fixture(scope="module")
def tables(study):
    names = ("tasks", "statistics", "outcomes", "front")
    return {name: pd.read_parquet(study["analysis"] / f"{name}.parquet") for name in names}


def test_draw_fits_draws_the_points_and_the_line_of_each_model(tables):
    figure = draw_fits(tables["tasks"], tables["statistics"], get_runs_by_model(tables["tasks"]))
    panels = np.reshape(figure.axes, (2, 2))
    for column, model in zip(panels.T, sorted(MODELS), strict=True):
        for axes, outcome in zip(column, (GAIN, "ood_change"), strict=True):
            tasks = tables["tasks"][tables["tasks"].method == "full"]
            tasks = tasks[tasks.model == model]
            points = np.concatenate([dots.get_offsets() for dots in axes.collections[:5]])
            np.testing.assert_allclose(points, tasks[["iimm", outcome]].astype(float))
            # The line equals numpy's least-squares fit.
            x, y = axes.lines[0].get_data()
            np.testing.assert_allclose(y, np.polyval(np.polyfit(*points.T, 1), x))
            assert "n 5" in axes.get_title(loc="right")


def test_draw_fits_draws_a_single_dataset(tables):
    tasks = tables["tasks"][tables["tasks"].dataset == NAMES[0]]
    figure = draw_fits(tasks, tables["statistics"], get_runs_by_model(tasks))
    assert all(len(axes.collections[0].get_offsets()) == 1 for axes in figure.axes)


def test_draw_fits_draws_a_column_of_panels_per_method(tables):
    runs = get_runs_by_method(tables["tasks"])
    assert [method for _, _, method in runs] == ["linear_probe", "full"]
    figure = draw_fits(tables["tasks"], tables["statistics"], runs)
    # A linear probe is not tested on other tasks.
    assert len(figure.axes) == 4 and not figure.axes[2].collections and not figure.axes[2].lines


def test_draw_matrices_draws_the_accuracies(tables):
    figure = draw_matrices(tables["outcomes"], "clip")
    full = next(axes for axes in figure.axes if axes.get_title() == "clip, full")
    drawn = full.images[0].get_array()
    outcomes = tables["outcomes"].query("model == 'clip'")
    zero_shot = outcomes[outcomes.method == "zero_shot"].set_index("evaluated_on").accuracy
    np.testing.assert_allclose(drawn[0], zero_shot[NAMES[:5]])
    tuned = outcomes[outcomes.method == "full"]
    tuned = tuned.set_index(["trained_on", "evaluated_on"]).accuracy
    assert drawn[1, 3] == tuned[NAMES[0], NAMES[3]]
    probe = next(axes for axes in figure.axes if axes.get_title() == "clip, linear_probe")
    assert np.isfinite(probe.images[0].get_array()).sum() == 5 + 5


def test_draw_trade_off_starts_curves_at_the_zero_shot_model(tables):
    figure = draw_trade_off(tables["front"])
    axes = figure.axes[0]
    front, line = axes.lines[2:4]  # after the two lines at 0
    assert line.get_xydata()[0].tolist() == [0, 0] and len(line.get_xydata()) == 3
    model = tables["front"][tables["front"].model == axes.get_title()]
    assert set(front.get_xdata()) == set(model.ood_change[model.on_front])
    # The cross spans the intervals of the fine-tuned model.
    end = model[model.wise_ft == 1].iloc[0]
    for bars, outcome, way in zip(axes.collections, ("ood_change", GAIN), (0, 1), strict=True):
        ends = np.sort(bars.get_segments()[0][:, way])
        np.testing.assert_allclose(ends, [end[f"{outcome}_low"], end[f"{outcome}_high"]])


def test_draw_training_draws_the_selected_trial(study, tables):
    selected = read_selected_epochs(study["epochs"], tables["tasks"])
    figure = draw_training(selected, selected.model.iloc[0])
    epochs = pd.read_parquet(study["epochs"][0]).query("dataset == @NAMES[0] and trial == 2")
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), epochs.val_accuracy)


def test_draw_figures_writes_the_same_bytes_each_time(study, tmp_path):
    for folder in ("one", "two"):
        draw_figures(study["analysis"], study["epochs"], ["clip"], tmp_path / folder)
    names = {"models", "methods", "trade_off", "training_clip", "accuracy_clip"}
    files = sorted((tmp_path / "one").iterdir())
    assert {path.stem for path in files} == names
    for path in files:
        assert ET.parse(path).getroot().tag.endswith("svg")
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_draw_figures_writes_messages_for_a_study_without_data(study, tmp_path):
    for name in ("tasks", "statistics", "front"):
        frame = pd.read_parquet(study["analysis"] / f"{name}.parquet")
        save(frame.iloc[:0], tmp_path / f"{name}.parquet")
    outcomes = pd.read_parquet(study["analysis"] / "outcomes.parquet")
    save(outcomes[outcomes.method == "zero_shot"], tmp_path / "outcomes.parquet")
    draw_figures(tmp_path, [], ["clip"], tmp_path / "figures")
    assert len(list((tmp_path / "figures").glob("*.svg"))) == 5


def test_draw_fits_has_no_legend_for_many_datasets(tables):
    many = pd.concat([
        tables["tasks"].query("model == 'clip' and method == 'full'").assign(dataset=f"d{i}")
        for i in range(MAX_NAMED_DATASETS + 1)
    ])  # fmt: skip
    figure = draw_fits(many, tables["statistics"], get_runs_by_model(many))
    assert not figure.legends
