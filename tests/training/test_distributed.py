"""Tests of sharing GPUs among jobs and of several processes in one job, without any GPU."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import yte

from checkout import CLIP_MINI, ROOT
from foretune.core.devices import take_devices, visible_devices
from foretune.core.errors import ForetuneError

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


@pytest.mark.parametrize("method", ["full", "lora"])
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


HOLD = """
import sys
sys.path.insert(0, "workflow_scripts")
from foretune.core.devices import take_devices
take_devices(int(sys.argv[1]))
input()
"""


def test_take_devices_gives_each_job_a_device_of_its_own(tmp_path):
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "0,2,5", "TMPDIR": str(tmp_path)}

    def start(count):
        return subprocess.Popen(
            [sys.executable, "-u", "-c", HOLD, str(count)], cwd=ROOT, env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    jobs = [start(1), start(1), start(1)]
    assert sorted(job.stdout.readline() for job in jobs) == ["GPU: 0\n", "GPU: 2\n", "GPU: 5\n"]
    waiting = start(2)
    assert waiting.stdout.readline() == "waiting for a GPU\n"
    for job in jobs[1:]:
        job.kill()  # a lock ends with its process, even if that is killed
    freed = waiting.stdout.readline()
    while freed == "waiting for a GPU\n":
        freed = waiting.stdout.readline()
    assert len(freed.split(",")) == 2
    for job in (jobs[0], waiting):
        job.kill()
    for job in (*jobs, waiting):
        job.communicate()


@pytest.mark.parametrize(
    ("visible", "count", "left"), [("3", 1, "3"), ("0,1", 2, "0,1"), ("0,1", 0, ""), ("", 1, "")]
)
def test_take_devices_keeps_what_is_visible_if_it_is_enough(visible, count, left, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    take_devices(count, log=lambda line: None)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == left


def test_take_devices_refuses_more_devices_than_there_are(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(ForetuneError, match="takes 4 GPUs and there are 2"):
        take_devices(4)


def test_visible_devices_are_counted_and_limit_the_jobs(tmp_path, monkeypatch):
    listing = tmp_path / "nvidia-smi"
    listing.write_text('#!/bin/sh\nprintf "GPU 0: x (UUID: a)\\nGPU 1: x (UUID: b)\\n"\n')
    listing.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert visible_devices() == ["0", "1"]
    monkeypatch.chdir(ROOT)
    with open("profiles/default/config.yaml") as profile:
        assert yte.process_yaml(profile, require_use_yte=True)["resources"] == ["gpu=2"]
