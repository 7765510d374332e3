"""Kill the smoke study while it runs: the same command then completes it, with equal numbers."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from smoke import COMMAND, ENV, numbers, run

pytestmark = pytest.mark.long


def start_until(checkout, pattern):
    """Start the study in its own process group, and return when a file matches the pattern."""
    process = subprocess.Popen(
        COMMAND, cwd=checkout, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    while not list(checkout.glob(pattern)) and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None, "the study ended before it could be killed"
    return process


@pytest.mark.slow
def test_study_completes_after_all_its_processes_were_killed(study, checkout):
    process = start_until(checkout, "results/trials/**/state/journal.json")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list((checkout / ".snakemake/locks").iterdir()), (
        "no stale lock: the study was killed too late"
    )
    run(checkout)
    for resumed, unbroken in zip(numbers(checkout), numbers_of_smoke_study(study[0]), strict=True):
        pd.testing.assert_frame_equal(resumed, unbroken, check_exact=True)


def numbers_of_smoke_study(checkout):
    """Return the numbers of the smoke study, even if another test has added a dataset to it."""
    run(checkout)
    return numbers(checkout)


@pytest.mark.slow
def test_study_completes_next_to_the_orphans_of_a_killed_snakemake(study, checkout):
    process = start_until(checkout, "results/trials/**/.lock")
    process.kill()
    process.wait()
    commands = Path("/proc").glob("[0-9]*/cmdline")
    assert any(
        str(checkout.name) in get_folder(path) and "finetune.py" in read(path) for path in commands
    )
    run(checkout)  # while the orphaned jobs are still running
    for resumed, unbroken in zip(numbers(checkout), numbers_of_smoke_study(study[0]), strict=True):
        pd.testing.assert_frame_equal(resumed, unbroken, check_exact=True)


def read(path):
    try:
        return path.read_text()
    except OSError:  # the process has ended
        return ""


def get_folder(cmdline):
    try:
        return os.readlink(cmdline.with_name("cwd"))
    except OSError:
        return ""
