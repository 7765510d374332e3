"""GPUs of jobs at the same time: which a job takes, and that nothing is hidden without need."""

import os
import subprocess
import sys
import tempfile

import pytest
import yte

from checkout import ROOT
from foretune.core.devices import take_devices, visible_devices
from foretune.core.errors import ForetuneError

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


def test_take_devices_hides_nothing_if_nothing_tells_what_there_is(monkeypatch, tmp_path):
    # A container without nvidia-smi, or AMD's GPUs, which obey CUDA_VISIBLE_DEVICES, too.
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for count in (1, 0):
        take_devices(count, log=lambda line: None)
        assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize(
    "names",
    [
        "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,GPU-f1c1a3e0-0000-4106-c12f-20bd9faed9f6",
        "MIG-GPU-8932f937/1/0,MIG-GPU-8932f937/2/0",  # of drivers before R470
        "MIG-3c0ad1b3-5c1e-5a3a-9d7b-1a2b3c4d5e6f,MIG-4c0ad1b3-5c1e-5a3a-9d7b-1a2b3c4d5e6f",
    ],
)
def test_take_devices_takes_every_kind_of_name(names, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    take_devices(1, log=lambda line: None)
    first = os.environ["CUDA_VISIBLE_DEVICES"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    take_devices(1, log=lambda line: None)
    assert [first, os.environ["CUDA_VISIBLE_DEVICES"]] == names.split(",")


@pytest.mark.parametrize(
    ("value", "devices"),
    [("0,-1,1", ["0"]), ("-1", []), ("NoDevFiles", []), ("0, 1", ["0", "1"]), ("", [])],
)
def test_visible_devices_reads_the_variable_as_cuda_does(value, devices, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_devices() == devices
