"""Figures for papers: what is drawn is what the tables have."""

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
)
from report_study import NAMES, make_study, save

MODELS = ("clip", "a $model$")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return make_study(folder, names=NAMES[:5], models=MODELS, methods=("linear_probe", "full"))


@pytest.fixture(scope="module")
def tables(study):
    names = ("tasks", "statistics", "outcomes", "wise_ft")
    return {name: pd.read_parquet(study["analysis"] / f"{name}.parquet") for name in names}


def test_iimm_against_gain_and_forgetting_by_model(tables):
    figure = draw_fits(tables["tasks"], tables["statistics"], get_runs_by_model(tables["tasks"]))
    panels = np.reshape(figure.axes, (2, 2))
    for column, model in zip(panels.T, sorted(MODELS), strict=True):
        for axes, outcome in zip(column, (GAIN, "ood_change"), strict=True):
            own = tables["tasks"][tables["tasks"].method == "full"]
            own = own[own.model == model]
            points = np.concatenate([each.get_offsets() for each in axes.collections[:5]])
            np.testing.assert_allclose(points, own[["iimm", outcome]].astype(float))
            # The line is numpy's.
            x, y = axes.lines[0].get_data()
            np.testing.assert_allclose(y, np.polyval(np.polyfit(*points.T, 1), x))
            assert "n 5" in axes.get_title(loc="right")


def test_by_method_a_panel_a_method(tables):
    runs = get_runs_by_method(tables["tasks"])
    assert [method for _, _, method in runs] == ["linear_probe", "full"]
    figure = draw_fits(tables["tasks"], tables["statistics"], runs)
    # A probe has no other tasks.
    assert len(figure.axes) == 4 and not figure.axes[2].collections and not figure.axes[2].lines


def test_the_matrix_is_the_outcomes(tables):
    figure = draw_matrices(tables["outcomes"], "clip")
    full = next(axes for axes in figure.axes if axes.get_title() == "clip, full")
    drawn = full.images[0].get_array()
    own = tables["outcomes"].query("model == 'clip'")
    zero = own[own.method == "zero_shot"].set_index("evaluated_on").accuracy
    np.testing.assert_allclose(drawn[0], zero[NAMES[:5]])
    tuned = own[own.method == "full"].set_index(["trained_on", "evaluated_on"]).accuracy
    assert drawn[1, 3] == tuned[NAMES[0], NAMES[3]]
    probe = next(axes for axes in figure.axes if axes.get_title() == "clip, linear_probe")
    assert np.isfinite(probe.images[0].get_array()).sum() == 5 + 5


def test_curves_begin_at_the_zero_shot_model(tables):
    figure = draw_trade_off(tables["tasks"], tables["wise_ft"])
    line = figure.axes[0].lines[2]  # after the axes' zeros
    assert line.get_xydata()[0].tolist() == [0, 0] and len(line.get_xydata()) == 3


def test_training_draws_the_chosen_trial(study, tables):
    figure = draw_training(study["epochs"], tables["tasks"])
    epochs = pd.read_parquet(study["epochs"][0]).query("dataset == @NAMES[0] and trial == 2")
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), epochs.val_accuracy)


def test_files_are_whole_and_the_same_each_time(study, tmp_path):
    for folder in ("one", "two"):
        draw_figures(study["analysis"], study["epochs"], ["clip"], tmp_path / folder)
    names = {"models", "methods", "trade_off", "training", "accuracy_clip"}
    files = sorted((tmp_path / "one").iterdir())
    assert {path.stem for path in files} == names
    for path in files:
        assert ET.parse(path).getroot().tag.endswith("svg")
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_without_anything_to_draw_the_figure_says_so(study, tmp_path):
    for name in ("tasks", "statistics", "wise_ft"):
        frame = pd.read_parquet(study["analysis"] / f"{name}.parquet")
        save(frame.iloc[:0], tmp_path / f"{name}.parquet")
    outcomes = pd.read_parquet(study["analysis"] / "outcomes.parquet")
    save(outcomes[outcomes.method == "zero_shot"], tmp_path / "outcomes.parquet")
    draw_figures(tmp_path, [], ["clip"], tmp_path / "figures")
    assert len(list((tmp_path / "figures").glob("*.svg"))) == 5


def test_many_datasets_are_alike(tables):
    many = pd.concat([
        tables["tasks"].query("model == 'clip' and method == 'full'").assign(dataset=f"d{i}")
        for i in range(MAX_NAMED_DATASETS + 1)
    ])  # fmt: skip
    figure = draw_fits(many, tables["statistics"], get_runs_by_model(many))
    assert not figure.legends
