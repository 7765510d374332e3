"""The state of a killed job: files that a disk changed are noticed, although they can be read."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from foretune.core.errors import ForetuneError
from foretune.training.checkpoint import JobState, load_checkpoint
from foretune.training.methods import apply_trained_weights

ROW = {
    "trial": 0, "learning_rate_peak": 0.1, "weight_decay": 0.0, "epoch": 1, "loss": 1.0,
    "val_accuracy": 0.5, "learning_rate": 0.1, "images_per_second": 1.0, "ended": None,
}  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    """Return the folder of a state with one epoch of an unfinished trial, the best so far."""
    state = JobState(tmp_path / "state", {"code": "c"})
    state.rows["key"] = [ROW]
    weights = {"w": torch.arange(100.0)}
    state.save("key", {"weights": weights, "optimizer": {}}, weights, {})
    return tmp_path / "state"


def read(folder) -> tuple[JobState, list[str]]:
    lines: list[str] = []
    return JobState(folder, {"code": "c"}, lines.append), lines


def test_state_is_read_as_it_was_written(saved):
    state, lines = read(saved)
    assert state.rows == {"key": [ROW]} and state.best["row"] == ROW and lines == []
    assert torch.equal(state.resume("key")["weights"]["w"], torch.arange(100.0))
    assert len(list(saved.iterdir())) == 3
    state.save("key", None, None, {})  # the files that no trial needs any more are forgotten
    assert state.files.keys() == {state.best["file"]}


@pytest.mark.parametrize("name", ["*.pt", "*.safetensors"])
def test_a_changed_number_in_a_file_is_noticed(name, saved):
    (path,) = saved.glob(name)
    content = path.read_bytes()
    number = torch.tensor(77.0).numpy().tobytes()
    assert content.count(number) == 1
    path.write_bytes(content.replace(number, torch.tensor(78.0).numpy().tobytes()))
    state, lines = read(saved)
    assert state.resume("key") is None
    assert f"{path.name} cannot be read (it is not what was written)" in lines[0]
    assert (saved / f"{path.name}.damaged").exists()


def test_a_changed_number_in_the_journal_is_noticed(saved):
    journal = saved / "journal.json"
    journal.write_text(journal.read_text().replace('"val_accuracy": 0.5', '"val_accuracy": 0.9'))
    state, lines = read(saved)
    assert state.rows == {} and state.best is None
    assert "journal.json cannot be read (it is not what was written)" in lines[0]


@pytest.mark.parametrize("content", [b"[]", b"{}", b'{"made_from": 1', b"\xff", b"null"])
def test_a_journal_of_another_kind_is_set_aside(content, saved):
    (saved / "journal.json").write_bytes(content)
    state, lines = read(saved)
    assert state.rows == {} and "journal.json" in lines[0]


def test_load_checkpoint_sets_aside_what_is_no_checkpoint(tmp_path):
    for content in ([1], {"made_from": {}}):
        torch.save(content, tmp_path / "x.pt")
        assert load_checkpoint(tmp_path / "x.pt", {}, log=lambda line: None) is None
        assert (tmp_path / "x.damaged").exists()


def test_apply_trained_weights_names_a_damaged_file(tmp_path):
    path, model = tmp_path / "w.safetensors", torch.nn.Linear(2, 2)
    save_file({"a": torch.ones(2)}, path)  # without what `describe_trained_weights` says
    shutil.copy(path, tmp_path / "cut.safetensors")
    with open(tmp_path / "cut.safetensors", "r+b") as file:
        file.truncate(20)
    (tmp_path / "text.safetensors").write_text(json.dumps({}))
    for name in ("w", "cut", "text", "none"):
        with pytest.raises(ForetuneError, match=rf"{name}\.safetensors: cannot be read"):
            apply_trained_weights(model, tmp_path / f"{name}.safetensors")
