"""Confusions counted by hand from predictions."""

import numpy as np
import pandas as pd

from foretune.evaluation.confusions import (
    MAX_CONFUSED_CLASSES,
    confusion_matrix,
    count_confusions,
    find_most_confused,
)
from foretune.evaluation.scores import score_predictions, write_predictions

NAMES = ["cat", "dog", "<b>", "unseen"]


def test_pairs_are_counted_by_class():
    found = count_confusions(np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0, 2]), NAMES)
    # "<b>" is never confused, and so is no row of it.
    assert found == [
        {"class": "cat", "predicted": "cat", "n": 1, "class_n": 3, "share": 1 / 3},
        {"class": "cat", "predicted": "dog", "n": 2, "class_n": 3, "share": 2 / 3},
        {"class": "dog", "predicted": "cat", "n": 1, "class_n": 2, "share": 0.5},
        {"class": "dog", "predicted": "dog", "n": 1, "class_n": 2, "share": 0.5},
    ]


def test_only_zero_shot_and_the_own_task_are_counted(tmp_path):
    write_predictions(tmp_path / "one.parquet", list("abc"), [0, 0, 1], [0, 1, 1], "pets")
    manifest = {"name": "pets", "split": "sketch", "classes": NAMES, "test_digest": "d"}
    cases = [("zero_shot", None, None), ("full", "pets", 1.0), ("full", "pets", 0.5),
             ("full", "birds", 1.0)]  # fmt: skip
    kept = [score_predictions("a", *case, manifest, tmp_path / "one.parquet")[2] for case in cases]
    assert [len(rows) for rows in kept] == [3, 3, 0, 0]
    key = {"model": "a", "method": "full", "evaluated_on": "pets", "split": "sketch"}
    assert all(key.items() <= row.items() for row in kept[1])


def test_the_most_confused_are_few_and_of_the_most_frequent_pairs():
    counts = np.diag(np.full(20, 100))
    for i in range(0, 20, 2):  # pair (i, i + 1) is confused i + 1 times, either way
        counts[i, i + 1] = i + 1
    chosen = find_most_confused(counts)
    assert list(chosen) == list(range(20 - MAX_CONFUSED_CLASSES, 20))
    assert len(find_most_confused(np.diag([5, 5]))) == 0
    counts[19, 0] = 1000
    assert {0, 19} <= set(find_most_confused(counts)) and len(
        find_most_confused(counts)
    ) == MAX_CONFUSED_CLASSES


def test_counts_are_a_crosstab():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 5, (2, 200))
    expected = pd.crosstab(labels, predicted).to_numpy()
    np.testing.assert_array_equal(confusion_matrix(labels, predicted, 5), expected)
