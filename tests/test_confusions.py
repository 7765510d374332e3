"""Confusions counted by hand from predictions."""

import numpy as np
import pandas as pd
import pytest

from foretune.confusions import CLASSES, CONFUSIONS, count_pairs, most_confused, tabulate_confusions
from foretune.evaluate import keep_predictions
from foretune.files import ForetuneError

NAMES = ["cat", "dog", "<b>", "unseen"]


def outcome(file: str, **changes) -> dict:
    return {
        "model": "a", "method": "full", "wise_ft": 1.0, "trained_on": "pets",
        "evaluated_on": "pets", "split": "test", "predictions": file,
    } | changes  # fmt: skip


@pytest.fixture
def predictions(tmp_path):
    labels, predicted = [0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 0, 2]
    keep_predictions(tmp_path / "one.parquet", list("abcdef"), labels, predicted, "pets")
    return tmp_path


def test_pairs_are_counted_by_class(predictions):
    found = tabulate_confusions(
        pd.DataFrame([outcome("one.parquet")]), predictions, {"pets": NAMES}
    )
    rows = found[["class", "predicted", "n", "class_n", "share"]].to_numpy().tolist()
    # "<b>" is never confused, and so is no row of it.
    assert rows == [
        ["cat", "cat", 1, 3, 1 / 3], ["cat", "dog", 2, 3, 2 / 3],
        ["dog", "cat", 1, 2, 0.5], ["dog", "dog", 1, 2, 0.5],
    ]  # fmt: skip


def test_only_zero_shot_and_the_own_task_are_counted(predictions):
    tests = [
        outcome("one.parquet", method="zero_shot", wise_ft=None, trained_on=None),
        outcome("one.parquet", split="sketch"),
        outcome("one.parquet", wise_ft=0.5),
        outcome("one.parquet", trained_on="birds"),
    ]
    found = tabulate_confusions(pd.DataFrame(tests), predictions, {"pets": NAMES})
    kept = found[["method", "split"]].drop_duplicates().to_numpy().tolist()
    assert kept == [["zero_shot", "test"], ["full", "sketch"]]


def test_the_most_confused_are_few_and_of_the_most_frequent_pairs():
    counts = np.diag(np.full(20, 100))
    for i in range(0, 20, 2):  # pair (i, i + 1) is confused i + 1 times, either way
        counts[i, i + 1] = i + 1
    chosen = most_confused(counts)
    assert list(chosen) == list(range(20 - CLASSES, 20))
    assert len(most_confused(np.diag([5, 5]))) == 0
    counts[19, 0] = 1000
    assert {0, 19} <= set(most_confused(counts)) and len(most_confused(counts)) == CLASSES


def test_counts_are_a_crosstab():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 5, (2, 200))
    expected = pd.crosstab(labels, predicted).to_numpy()
    np.testing.assert_array_equal(count_pairs(labels, predicted, 5), expected)


def test_deleted_predictions_are_left_out_and_said(predictions, capsys):
    found = tabulate_confusions(pd.DataFrame([outcome("gone")]), predictions, {"pets": NAMES})
    assert found.empty and list(found) == CONFUSIONS
    assert "1 tests are left out" in capsys.readouterr().out


def test_predictions_of_other_classes_are_named(predictions):
    with pytest.raises(ForetuneError, match=r"one\.parquet: a class out of range for pets"):
        tabulate_confusions(
            pd.DataFrame([outcome("one.parquet")]), predictions, {"pets": NAMES[:2]}
        )
    (predictions / "bad").write_bytes(b"PAR1")
    with pytest.raises(ForetuneError, match="bad: not a readable Parquet"):
        tabulate_confusions(pd.DataFrame([outcome("bad")]), predictions, {"pets": NAMES})
