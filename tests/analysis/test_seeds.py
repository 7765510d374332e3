"""Means and intervals over seeds."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from foretune.analysis.outcomes import GAIN
from foretune.analysis.seeds import average_seeds, keep_first_seed, tabulate_seeds


def make_tasks(rows):
    columns = ["method", "dataset", "accuracy", GAIN, "ood_change", "learning_rate"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(model="m", wise_ft=1.0, shifted_change=np.nan, licence="none")


TASKS = make_tasks([
    ("lora_4shot_seed0", "a", 0.5, 0.2, -0.1, 0.1), ("lora_4shot_seed1", "a", 0.7, 0.4, -0.3, 0.1),
    ("lora_4shot_seed0", "b", 0.9, 0.6, 0.0, 0.1), ("lora_4shot_seed1", "b", 0.8, 0.5, 0.1, 0.2),
    ("lora", "a", 0.8, 0.6, -0.2, 0.1), ("full", "a", 0.9, 0.8, -0.4, 0.1),
])  # fmt: skip


def test_tasks_are_averaged_over_seeds():
    tasks = average_seeds(TASKS).set_index(["method", "dataset"])
    assert len(tasks) == 4
    assert tasks.accuracy["lora_4shot", "a"] == pytest.approx(0.6)
    assert tasks.ood_change["lora_4shot", "b"] == pytest.approx(0.05)
    assert tasks.accuracy["full", "a"] == 0.9
    assert tasks.learning_rate["lora_4shot", "a"] == 0.1
    assert np.isnan(tasks.learning_rate["lora_4shot", "b"])  # the seeds selected different trials
    assert tasks.licence["lora_4shot", "a"] == "none"


def test_a_study_without_seeds_is_left_as_it_is():
    rows = TASKS[TASKS.method.isin(["lora", "full"])]
    assert average_seeds(rows) is rows
    assert tabulate_seeds(rows).empty


def test_intervals_are_those_of_students_t():
    table = tabulate_seeds(TASKS)
    assert "full" not in set(table.method)
    rows = table.set_index(["method", "dataset"])
    row = rows.loc["lora_4shot", "a"]
    low, high = stats.t.interval(0.95, 1, 0.6, stats.sem([0.5, 0.7]))
    assert (row.shots, row.seeds, row.accuracy) == (4, 2, pytest.approx(0.6))
    assert low < 0 and high > 1  # two seeds tell little, but an accuracy has limits
    assert (row.accuracy_low, row.accuracy_high) == (0, 1)
    assert np.isnan(row.shifted_change)
    # Over the datasets: the means of the seeds are 0.7 and 0.75.
    row = table[(table.method == "lora_4shot") & table.dataset.isna()].iloc[0]
    low, high = stats.t.interval(0.95, 1, 0.725, stats.sem([0.7, 0.75]))
    assert (row.accuracy, row.accuracy_low) == (pytest.approx(0.725), pytest.approx(low))
    # A method on all images stands beside its few-shot runs.
    assert np.isnan(rows.loc["lora", "a"].shots) and np.isnan(rows.loc["lora", "a"].accuracy_low)


def test_the_first_seed_is_kept():
    rows = keep_first_seed(TASKS)
    assert sorted(rows.method) == ["full", "lora", "lora_4shot", "lora_4shot"]
    assert rows.accuracy[rows.method == "lora_4shot"].tolist() == [0.5, 0.9]
