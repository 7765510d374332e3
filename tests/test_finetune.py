import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from conftest import CLIP_MINI, ROOT
from safetensors.torch import load_file

from foretune.files import ForetuneError
from foretune.finetune import Job, finetune, set_training, trainable
from foretune.models import load_model
from foretune.recipe import learning_rate_at
from foretune.trials import is_better, select_trial

RUN = {"model": "clip_mini", "method": "full", "dataset": "mnist"}
RECIPE = {
    "optimizer": "sgd", "momentum": 0.9, "epochs": 3, "batch_size": 32, "schedule": "cosine",
    "warmup_epochs": 1, "clip_norm": 1.0,
}  # fmt: skip
TRIALS = [
    {"trial": 0, "learning_rate": 0.05, "weight_decay": 1e-4},
    {"trial": 1, "learning_rate": 0.01, "weight_decay": 1e-4},
]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)  # what Snakemake gives a job; numbers depend on it


def tune(task, output, recipe=RECIPE, trials=TRIALS, log=lambda line: None):
    finetune(
        RUN, CLIP_MINI, task / "dataset", task / "embeddings/text.parquet", recipe, trials, 0,
        output, log,
    )  # fmt: skip
    return results(output)


def results(output):
    """A job's numbers, without its speed."""
    epochs = pd.read_parquet(output / "epochs.parquet").drop(columns="images_per_second")
    best = json.loads((output / "best.json").read_text())
    return epochs, {k: v for k, v in best.items() if k != "delta"}


def assert_same(one, other):
    pd.testing.assert_frame_equal(one[0], other[0], check_exact=True)
    assert one[1] == other[1]  # the sha256 of the weights is in it


@pytest.fixture(scope="module")
def unbroken(small_task, tmp_path_factory):
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("unbroken")
    return tune(small_task, output), output


def test_every_epoch_of_every_trial_is_a_row(unbroken):
    epochs, best = unbroken[0]
    assert list(zip(epochs.trial, epochs.epoch, strict=True)) == [
        (t, e) for t in (0, 1) for e in (1, 2, 3)
    ]
    row = epochs[(epochs.trial == best["trial"]) & (epochs.epoch == best["epoch"])].iloc[0]
    assert row.val_accuracy == best["val_accuracy"] == epochs.val_accuracy.max()
    assert best["learning_rate"] == TRIALS[best["trial"]]["learning_rate"]
    assert epochs.groupby("trial").loss.last().max() < epochs.groupby("trial").loss.first().min()


def test_full_trains_every_tensor_and_the_delta_is_what_validated(unbroken, small_task):
    (_, best), output = unbroken
    delta = load_file(output / "delta.safetensors")
    model, preprocess, tokenizer = load_model(CLIP_MINI)
    before = dict(model.named_parameters())
    assert delta.keys() == before.keys()
    unmoved = [name for name in delta if torch.equal(delta[name], before[name])]
    assert unmoved == []
    job = Job(
        RUN, CLIP_MINI, small_task / "dataset", small_task / "embeddings/text.parquet", RECIPE, 0,
        output, lambda line: None,
    )  # fmt: skip
    from foretune.classify import predict

    model.load_state_dict(delta, strict=False)
    predicted = predict(model, preprocess, tokenizer, job.images["val"], job.captions)
    assert (predicted == job.labels["val"]).double().mean().item() == best["val_accuracy"]


@pytest.mark.parametrize("epochs_before", [1, 3, 4])
def test_an_interrupted_run_goes_on_to_the_same_numbers(
    unbroken, small_task, tmp_path, epochs_before
):
    lines = []

    def interrupt(line):
        lines.append(line)
        if sum("epoch" in line for line in lines) == epochs_before:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(small_task, tmp_path, log=interrupt)
    assert not (tmp_path / "best.json").exists()
    resumed = []
    assert_same(tune(small_task, tmp_path, log=resumed.append), unbroken[0])
    assert sum("epoch" in line for line in resumed) == 6 - epochs_before


def test_sigkill_at_any_moment_resumes_to_the_same_numbers(unbroken, small_task, tmp_path):
    command = [
        sys.executable, ROOT / "workflow_scripts/finetune.py", "--model", "clip_mini", "--method",
        "full", "--dataset-name", "mnist", "--model-spec", json.dumps(CLIP_MINI), "--recipe",
        json.dumps(RECIPE), "--trials", json.dumps(TRIALS), "--seed", "0", "--dataset",
        small_task / "dataset", "--text", small_task / "embeddings/text.parquet", "--output",
        tmp_path,
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env)
    while not (tmp_path / "state.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)  # in the middle of an epoch, or of writing its state
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    assert done.stdout.count("epoch") < 6, "it started anew"
    assert_same(results(tmp_path), unbroken[0])


def test_a_grid_point_added_costs_its_own_epochs_only(unbroken, small_task, tmp_path):
    tune(small_task, tmp_path, trials=TRIALS[1:])
    lines = []
    grown = tune(small_task, tmp_path, log=lines.append)
    assert sum("epoch" in line for line in lines) == 3
    assert_same(grown, unbroken[0])


def test_a_state_of_another_recipe_is_not_used(unbroken, small_task, tmp_path):
    tune(small_task, tmp_path, recipe={**RECIPE, "batch_size": 64})
    lines = []
    assert_same(tune(small_task, tmp_path, log=lines.append), unbroken[0])
    assert any("made from another config" in line for line in lines)


def test_a_state_of_other_code_is_not_used(unbroken, small_task, tmp_path, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr("foretune.finetune.code_digest", lambda module: "older")
        tune(small_task, tmp_path)
    lines = []
    assert_same(tune(small_task, tmp_path, log=lines.append), unbroken[0])
    assert any("made from another config, data or code" in line for line in lines)


def test_divergence_is_an_error_that_names_the_key(small_task, tmp_path):
    wild = [{"trial": 0, "learning_rate": 1e30, "weight_decay": 0.0}]
    with pytest.raises(ForetuneError, match=r"diverged; lower methods\.full\.learning_rate"):
        tune(small_task, tmp_path, {**RECIPE, "warmup_epochs": 0, "clip_norm": 1e9}, wild)


def test_a_state_cut_short_is_not_used(unbroken, small_task, tmp_path):
    tune(small_task, tmp_path)
    state = tmp_path / "state.pt"
    state.write_bytes(state.read_bytes()[:5000])
    lines = []
    assert_same(tune(small_task, tmp_path, log=lines.append), unbroken[0])
    assert "cannot be read" in lines[-7]
    assert (tmp_path / "state.damaged").stat().st_size == 5000


def test_batch_norms_keep_their_statistics():
    tower = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout())
    set_training(tower)
    tower(torch.ones(4, 2) * 9)
    assert tower[1].training and torch.equal(tower[0].running_mean, torch.zeros(2))


def test_unknown_method():
    with pytest.raises(ForetuneError, match=r"methods\.lora"):
        trainable(torch.nn.Linear(1, 1), "lora")


def test_ties_go_to_the_smaller_learning_rate_and_the_earlier_epoch(tmp_path):
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


def test_learning_rate_schedule():
    recipe = {"warmup_epochs": 1, "epochs": 3, "schedule": "cosine"}
    rates = [learning_rate_at(recipe, 1.0, step, 4) for step in range(13)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == pytest.approx(0.5) and rates[12] == pytest.approx(0)
    assert learning_rate_at({**recipe, "schedule": "constant"}, 0.3, 9, 4) == 0.3


def test_full_fine_tuning_leaves_out_cocas_text_decoder():
    model, _, _ = load_model({"folder": ROOT / "resources/mini/coca"}, weights=False)
    trained, every = trainable(model, "full"), dict(model.named_parameters())
    assert {name.split(".")[0] for name in every} - {name.split(".")[0] for name in trained} == {
        "text_decoder"
    }
    assert len(every) - len(trained) == len(list(model.text_decoder.parameters()))
