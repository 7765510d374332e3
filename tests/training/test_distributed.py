"""Tests of several processes in one job, without any GPU."""

import json
import os
import subprocess
import sys
from functools import partial

import pandas as pd
import psutil
import pytest
import torch

import forked
from checkout import CLIP_MINI, ROOT
from foretune.core.errors import ForetuneError
from foretune.core.locks import exclusive_lock
from foretune.core.parquet import read_table
from foretune.training import distributed

RECIPE = {
    "optimizer": "sgd", "momentum": 0.9, "epochs": 2, "batch_size": 89, "schedule": "cosine",
    "warmup_epochs": 1, "clip_norm": 1.0, "label_smoothing": 0.1, "towers": "both",
    "precision": "auto", "compile": False, "augmentation": {"crop": 0.5, "flip": True},
    "search": {"kind": "grid"}, "alpha": 8, "projections": "qv",
}  # fmt: skip


MORE = {"lp_ft": {"towers": "image", "probe": {"learning_rate": [1.0], "epochs": 2}}}
SETTINGS = {"cwd": ROOT, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "text": True}


def make_command(task, output, gpus, method="full", epochs=2, rate=0.05):
    trials = [{"trial": i, "learning_rate": rate / 10**i, "weight_decay": 1e-4, "rank": 4}
              for i in range(2)]  # fmt: skip
    return (
        [sys.executable, "workflow_scripts/finetune.py", "--gpus", str(gpus),
         "--model", "clip_mini", "--method", method,
         "--dataset-name", "mnist", "--model-spec", json.dumps(CLIP_MINI),
         "--recipe", json.dumps({**RECIPE, "epochs": epochs, **MORE.get(method, {})}),
         "--trials", json.dumps(trials),
         "--seed", "0", "--dataset", task / "dataset", "--text", task / "embeddings/text.parquet",
         "--prepared", task / "prepared", "--output", output]
    )  # fmt: skip


def tune(task, output, gpus, method="full"):
    done = forked.run(*make_command(task, output, gpus, method)[1:])
    assert done.returncode == 0, done.stdout + done.stderr
    return pd.read_parquet(output / "epochs.parquet")


def check_losses(one, two):
    assert len(one) == len(two) == 4
    # Sums in another order differ in the last digits of float32, by more on some processors; a tie
    # of two classes may then go the other way for one of the 10 validation images.
    assert (one.loss - two.loss).abs().max() < 1e-4
    assert (one.val_accuracy - two.val_accuracy).abs().max() < 0.11


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "flyp", "lp_ft"])
def test_two_processes_give_the_loss_of_one(method, small_task, tmp_path):
    check_losses(*(tune(small_task, tmp_path / str(n), n, method) for n in (1, 2)))


def test_an_error_of_several_processes_is_that_of_the_first(tmp_path, monkeypatch, capfd):
    # Forked processes, because new ones would import torch.
    fork = partial(torch.multiprocessing.start_processes, start_method="fork")
    monkeypatch.setattr(torch.multiprocessing, "spawn", fork)
    torch.set_num_threads(1)
    with pytest.raises(ForetuneError) as error:
        distributed.launch(2, read_table, tmp_path / "text.parquet")
    message, printed = str(error.value), "".join(capfd.readouterr())
    assert message.count("text.parquet: no such file") == 1 and "\n" not in message
    # Nothing beside the one line in which the script ends.
    assert "Traceback" not in printed and "no such file" not in printed


def test_two_processes_start_after_the_lock_and_give_the_loss_of_one(small_task, tmp_path):
    """Before the images are prepared, all but one would wait in a barrier with a time limit."""
    for name in ("dataset", "embeddings"):
        (tmp_path / name).symlink_to(small_task / name)
    output = tmp_path / "job"
    command = [*make_command(tmp_path, output, 2)]
    with exclusive_lock(output):
        process = subprocess.Popen(
            command, **SETTINGS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        lines = iter(process.stdout.readline, "")
        before = next(line for line in lines if "waiting for another process" in line)
        assert before and not psutil.Process(process.pid).children()
    printed = process.communicate()[0]
    assert process.returncode == 0, printed
    prepared = [line for line in printed.splitlines() if "images prepared" in line]
    assert len(prepared) == 2 and printed.index(prepared[1]) < printed.index("epoch 1/2")
    # With 90 images in batches of 89, one process has no image of the last batch.
    two = pd.read_parquet(output / "epochs.parquet")
    check_losses(tune(small_task, tmp_path / "one", 1), two)
