"""Confusion counts, against counts by hand and pandas' crosstab."""

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


def test_count_confusions_by_hand():
    rows = count_confusions(np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0, 2]), NAMES)
    # "<b>" is never confused, so no row has it.
    assert rows == [
        {"class": "cat", "predicted": "cat", "n": 1, "class_n": 3, "share": 1 / 3},
        {"class": "cat", "predicted": "dog", "n": 2, "class_n": 3, "share": 2 / 3},
        {"class": "dog", "predicted": "cat", "n": 1, "class_n": 2, "share": 0.5},
        {"class": "dog", "predicted": "dog", "n": 1, "class_n": 2, "share": 0.5},
    ]


def test_score_predictions_counts_confusions_of_zero_shot_and_own_task_only(tmp_path):
    similarities = np.eye(2)[[0, 1, 1]]
    write_predictions(tmp_path / "one.parquet", list("abc"), [0, 0, 1], similarities, 1.0, "pets")
    manifest = {"name": "pets", "split": "sketch", "classes": NAMES, "test_digest": "d"}
    cases = [("zero_shot", None, None), ("full", "pets", 1.0), ("full", "pets", 0.5),
             ("full", "birds", 1.0)]  # fmt: skip
    confusions = [
        score_predictions("a", *case, manifest, tmp_path / "one.parquet").confusions
        for case in cases
    ]
    assert [len(rows) for rows in confusions] == [3, 3, 0, 0]
    key = {"model": "a", "method": "full", "evaluated_on": "pets", "split": "sketch"}
    assert all(key.items() <= row.items() for row in confusions[1])


def test_find_most_confused_takes_the_most_frequent_pairs():
    counts = np.diag(np.full(20, 100))
    for i in range(0, 20, 2):  # the classes i and i + 1 are confused i + 1 times
        counts[i, i + 1] = i + 1
    chosen = find_most_confused(counts)
    assert list(chosen) == list(range(20 - MAX_CONFUSED_CLASSES, 20))
    assert len(find_most_confused(np.diag([5, 5]))) == 0
    counts[19, 0] = 1000
    chosen = find_most_confused(counts)
    assert {0, 19} <= set(chosen) and len(chosen) == MAX_CONFUSED_CLASSES


def test_confusion_matrix_is_a_crosstab():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 5, (2, 200))
    expected = pd.crosstab(labels, predicted).to_numpy()
    np.testing.assert_array_equal(confusion_matrix(labels, predicted, 5), expected)
