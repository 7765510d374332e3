"""Tests of several processes in one job, without any GPU."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from checkout import CLIP_MINI, ROOT

RECIPE = {
    "optimizer": "sgd", "momentum": 0.9, "epochs": 2, "batch_size": 89, "schedule": "cosine",
    "warmup_epochs": 1, "clip_norm": 1.0, "label_smoothing": 0.1, "towers": "both",
    "precision": "auto", "compile": False, "augmentation": {"crop": 0.5, "flip": True},
    "search": {"kind": "grid"}, "alpha": 8, "projections": "qv",
}  # fmt: skip


def tune(task, output, gpus, method="full", epochs=2, rate=0.05, check=True):
    trials = [{"trial": i, "learning_rate": rate / 10**i, "weight_decay": 1e-4, "rank": 4}
              for i in range(2)]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "workflow_scripts/finetune.py", "--gpus", str(gpus),
         "--model", "clip_mini", "--method", method,
         "--dataset-name", "mnist", "--model-spec", json.dumps(CLIP_MINI),
         "--recipe", json.dumps({**RECIPE, "epochs": epochs}), "--trials", json.dumps(trials),
         "--seed", "0", "--dataset", task / "dataset", "--text", task / "embeddings/text.parquet",
         "--prepared", task / "prepared", "--output", output],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, capture_output=True,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return pd.read_parquet(output / "epochs.parquet") if check else done


@pytest.mark.parametrize("method", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_launch_of_two_processes_gives_the_loss_of_one(method, small_task, tmp_path):
    # With 90 images in batches of 89, one process has no image of the last batch.
    one, two = (tune(small_task, tmp_path / str(n), n, method) for n in (1, 2))
    assert len(one) == len(two) == 4
    # Sums in another order differ in the last digits of float32, by more on some processors; a tie
    # of two classes may then go the other way for one of the 10 validation images.
    assert (one.loss - two.loss).abs().max() < 1e-4
    assert (one.val_accuracy - two.val_accuracy).abs().max() < 0.11


def test_launch_reports_an_error_of_several_processes_in_one_line(small_task, tmp_path):
    (tmp_path / "dataset").symlink_to(small_task / "dataset")  # and no embeddings
    done = tune(tmp_path, tmp_path / "job", 2, check=False)
    assert done.returncode == 1 and done.stderr.count("text.parquet: no such file") == 1
    assert "Traceback" not in done.stderr
