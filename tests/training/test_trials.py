"""Tests of the choice among trials."""

import json

from foretune.training.trials import is_better, select_trial


def test_is_better_breaks_ties_by_the_smaller_learning_rate_and_the_earlier_epoch(tmp_path):
    def trial(number, accuracy, rate):
        row = {"trial": number, "val_accuracy": accuracy, "learning_rate": rate}
        return row | {"weight_decay": 0.0}

    first, second = trial(0, 0.5, 0.1), trial(1, 0.5, 0.2)
    assert is_better(first, None) and is_better(first, second)
    assert not is_better(second, first) and not is_better(first, first)
    paths = []
    for part in (second, first, trial(2, 0.4, 0.01)):
        paths.append(tmp_path / f"{part['trial']}.json")
        paths[-1].write_text(json.dumps(part))
    select_trial(paths, tmp_path / "best.json")
    assert json.loads((tmp_path / "best.json").read_text()) == first


def test_select_trial_takes_a_part_that_diverged_only_if_all_did(tmp_path):
    """A pair whose trials all diverged does not stop the study."""
    part = {"trial": 0, "val_accuracy": 0.5, "learning_rate": 0.1, "weight_decay": 0.0}
    diverged = {"diverged": True, "trained_weights": "w", "sha256": "0"}
    paths = [tmp_path / f"{number}.json" for number in range(3)]
    for path, content in zip(paths, (diverged, part, diverged), strict=True):
        path.write_text(json.dumps(content))
    for chosen, expected in ((paths, part), (paths[::2], diverged), (paths[:2], part)):
        select_trial(chosen, tmp_path / "best.json")
        assert json.loads((tmp_path / "best.json").read_text()) == expected
