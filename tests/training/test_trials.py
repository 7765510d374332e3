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
