"""The table of base and new classes."""

import pandas as pd
import pytest

from foretune.analysis.base_to_new import BASE_TO_NEW_COLUMNS, tabulate_base_to_new


def test_accuracies_on_both_halves_by_hand():
    rows = [
        ("lora_seed0", "d_base", "d_base", 0.9, 0.5), ("lora_seed0", "d_base", "d_new", 0.4, 0.6),
        ("lora_seed1", "d_base", "d_base", 0.7, 0.5), ("lora_seed1", "d_base", "d_new", 0.2, 0.6),
        ("lora_seed0", "d_new", "d_new", 0.8, 0.6), ("lora_seed0", "d_new", "d_base", 0.3, 0.5),
        ("lora_seed0", "d_base", "e", 0.3, 0.5), ("zero_shot", None, "d_base", 0.5, 0.5),
        ("probe", "d_base", "d_base", 0.9, 0.5),
    ]  # fmt: skip
    columns = ["method", "trained_on", "evaluated_on", "accuracy", "zero_shot_accuracy"]
    outcomes = pd.DataFrame(rows, columns=columns).assign(model="m", split="test", wise_ft=1.0)
    (row,) = tabulate_base_to_new(outcomes).to_dict("records")
    assert (row["method"], row["dataset"]) == ("lora", "d")
    assert (row["base"], row["new"]) == (pytest.approx(0.8), pytest.approx(0.3))
    assert row["harmonic_mean"] == pytest.approx(2 / (1 / 0.8 + 1 / 0.3))
    assert row["zero_shot_harmonic_mean"] == pytest.approx(2 / (1 / 0.5 + 1 / 0.6))


def test_a_study_without_halves_has_no_row():
    outcomes = pd.DataFrame(
        [("m", "full", 1.0, "a", "a", "test", 0.5, 0.4)],
        columns=["model", "method", "wise_ft", "trained_on", "evaluated_on", "split", "accuracy",
                 "zero_shot_accuracy"],
    )  # fmt: skip
    table = tabulate_base_to_new(outcomes)
    assert table.empty and list(table) == BASE_TO_NEW_COLUMNS
