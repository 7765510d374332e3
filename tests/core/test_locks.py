"""Orphans of a killed run, by stand-ins for Slurm's commands; test_slurm.py has a real one."""

import os

import pytest

from foretune.core.errors import ForetuneError
from foretune.core.locks import LOCK_HOLDER_VARIABLE
from foretune.core.slurm import cancel_orphans, refuse_orphans


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Gives the commands what to do, as shell text; the study's folder is the current one."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "study").mkdir()
    monkeypatch.chdir(tmp_path / "study")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv(LOCK_HOLDER_VARIABLE, str(os.getpid()))  # no lock is left in this process

    def give(**commands):
        for name, text in commands.items():
            (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / "bin" / name).chmod(0o755)

    return give


ONE = 'echo "12|RUNNING|foretune_x|$PWD"; echo "13|RUNNING|foretune_x|/elsewhere"'
REFUSES = 'echo "error: job id 12: Invalid job id specified" >&2; exit 1'


def test_a_job_that_ends_before_it_is_cancelled_is_no_error(slurm):
    slurm(squeue=f"[ -f asked ] || {{ touch asked; {ONE}; }}", scancel=REFUSES)
    said = []
    cancel_orphans(said.append)
    assert said[0] == "cancelling 1 Slurm jobs: 12" and "the next run may start" in said[-1]


def test_what_slurm_refuses_is_said(slurm):
    slurm(squeue=ONE, scancel=REFUSES)
    with pytest.raises(ForetuneError, match="scancel: error: job id 12: Invalid job id"):
        cancel_orphans(print)
    with pytest.raises(ForetuneError, match=r"1 jobs .*the first: 12.*make clean-orphans"):
        refuse_orphans()
    slurm(squeue='echo "no controller" >&2; exit 1')
    with pytest.raises(ForetuneError, match="squeue: no controller"):
        cancel_orphans(print)
    said = []
    refuse_orphans(said.append)  # Slurm may be installed and not used
    assert said == ["jobs of an earlier run were not looked for: squeue: no controller"]
