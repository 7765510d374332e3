"""Slurm jobs of a killed run, with shell scripts in place of Slurm's commands.

tests/cluster/test_slurm.py uses a real Slurm.
"""

import os

import pytest

from foretune.core.errors import ForetuneError
from foretune.core.locks import LOCK_HOLDER_VARIABLE
from foretune.core.slurm import cancel_orphans, refuse_orphans


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Return a function that installs commands, given as shell text, for a study's folder."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "study").mkdir()
    monkeypatch.chdir(tmp_path / "study")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    # The process counts as the holder of the lock, so that it does not keep one open.
    monkeypatch.setenv(LOCK_HOLDER_VARIABLE, str(os.getpid()))

    def install(**commands):
        for name, text in commands.items():
            (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / "bin" / name).chmod(0o755)

    return install


ONE_JOB_HERE = 'echo "12|RUNNING|foretune_x|$PWD"; echo "13|RUNNING|foretune_x|/elsewhere"'
INVALID_JOB = 'echo "error: job id 12: Invalid job id specified" >&2; exit 1'


def test_cancel_orphans_accepts_a_job_that_ends_before_it_is_cancelled(slurm):
    slurm(squeue=f"[ -f asked ] || {{ touch asked; {ONE_JOB_HERE}; }}", scancel=INVALID_JOB)
    lines = []
    cancel_orphans(lines.append)
    assert lines[0] == "cancelling 1 Slurm jobs: 12" and "the next run may start" in lines[-1]


def test_orphans_messages_repeat_what_slurm_refuses(slurm):
    slurm(squeue=ONE_JOB_HERE, scancel=INVALID_JOB)
    with pytest.raises(ForetuneError, match="scancel: error: job id 12: Invalid job id"):
        cancel_orphans(print)
    with pytest.raises(ForetuneError, match=r"1 jobs .*the first is 12.*make clean-orphans"):
        refuse_orphans()
    slurm(squeue='echo "no controller" >&2; exit 1')
    with pytest.raises(ForetuneError, match="squeue: no controller"):
        cancel_orphans(print)
    lines = []
    refuse_orphans(lines.append)  # Slurm may be installed but not in use
    assert lines == ["could not look for jobs of an earlier run: squeue: no controller"]
