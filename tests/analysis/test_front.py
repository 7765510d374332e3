"""The front of mean gain and mean forgetting."""

import numpy as np
import pandas as pd
import pytest

from foretune.analysis.front import FRONT_COLUMNS, compute_front, find_front
from foretune.analysis.outcomes import GAIN
from foretune.report.summary import describe_fronts


def make_tasks(outcomes: dict[tuple[str, float], tuple[list, list]]) -> pd.DataFrame:
    """Return the tasks of one model, from gains and changes by method and coefficient."""
    return pd.DataFrame([
        {"model": "clip", "method": method, "wise_ft": wise_ft, "dataset": f"d{i}",
         GAIN: gain, "ood_change": change}
        for (method, wise_ft), columns in outcomes.items()
        for i, (gain, change) in enumerate(zip(*columns, strict=True))
    ])  # fmt: skip


def test_points_without_a_better_one_are_on_the_front():
    gain = np.array([0.0, 0.5, 0.5, 0.6, 0.4])
    change = np.array([0.0, -0.1, -0.1, -0.2, -0.3])
    # Equal points do not dominate each other.
    assert find_front(gain, change).tolist() == [True, True, True, True, False]
    both = find_front(np.stack([gain, gain]), np.stack([change, -change]))
    assert both.tolist()[1] == [False, False, False, True, True]


def test_methods_are_compared_on_the_datasets_that_all_of_them_share():
    nan = float("nan")
    tasks = make_tasks({
        ("full", 1.0): ([0.6] * 6 + [nan], [-0.2] * 7),
        ("full", 0.5): ([0.5] * 7, [-0.05] * 7),
        # On the sixth dataset, full would be better; the lora of that dataset diverged.
        ("lora", 1.0): ([0.4] * 5 + [nan, 9], [-0.1] * 7),
        ("linear_probe", 1.0): ([0.9] * 7, [nan] * 7),
    })  # fmt: skip
    front = compute_front(tasks, seed=0)
    assert list(front.columns) == FRONT_COLUMNS
    assert list(zip(front.method, front.wise_ft, strict=True)) == [
        ("zero_shot", 0), ("full", 0.5), ("full", 1), ("lora", 1),
    ]  # fmt: skip
    assert set(front.n) == {5}
    np.testing.assert_allclose(front[GAIN], [0, 0.5, 0.6, 0.4])
    assert front.on_front.tolist() == [True, True, True, False]
    assert front.front_share.tolist() == [1, 1, 1, 0]


def test_intervals_and_shares_are_those_of_paired_resamples():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 0.3, 40)  # common to both methods, so that it cannot change the front
    tasks = make_tasks({
        ("full", 1.0): (list(0.5 + hard), [-0.1] * 40),
        ("lora", 1.0): (list(0.51 + hard), [-0.1] * 40),
    })  # fmt: skip
    front = compute_front(tasks, seed=0).set_index("method")
    assert front.front_share[["full", "lora"]].tolist() == [0, 1]
    deviation = hard.std() / np.sqrt(40)
    span = front[f"{GAIN}_high"] - front[f"{GAIN}_low"]
    assert span["full"] == pytest.approx(2 * 1.96 * deviation, rel=0.1)
    pd.testing.assert_frame_equal(front, compute_front(tasks, seed=0).set_index("method"))


def test_few_datasets_have_a_front_without_intervals():
    front = compute_front(make_tasks({("full", 1.0): ([0.5] * 4, [-0.1] * 4)}), seed=0)
    assert front.on_front.all() and front.front_share.isna().all()
    assert "So few datasets" in describe_fronts(front)["clip"]


def test_models_without_a_shared_dataset_have_no_front():
    nan = float("nan")
    tasks = make_tasks({("full", 1.0): ([0.5, nan], [0, 0]), ("lora", 1.0): ([nan, 0.5], [0, 0])})
    for known in (tasks, tasks[:0]):
        front = compute_front(known, seed=0)
        assert front.empty and describe_fronts(front) == {}
        assert front.dtypes.astype(str).to_dict()["on_front"] == "bool"


def test_the_front_is_told_in_words():
    tasks = make_tasks({
        ("full", 1.0): ([0.6] * 6, [-0.2] * 6),
        ("full", 0.5): ([0.5] * 6, [-0.05] * 6),
        ("lora", 1.0): ([0.4] * 6, [-0.1] * 6),
        ("bitfit", 1.0): ([0.9] * 2 + [0.29] * 4, [-0.02] + [-0.06] * 5),
    })  # fmt: skip
    front = compute_front(tasks, seed=0)
    text = describe_fronts(front)["clip"]
    assert text.startswith("clip: on the front of the means over 6 datasets are the zero-shot model"
                           " (100%), full with weight 0.5 (")  # fmt: skip
    assert "Not excluded: bitfit (" in text
    assert text.endswith("In more than 95% of the resamples, these are not on it: lora (0%).")
