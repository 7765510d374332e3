"""The smoke study killed while it runs, and the same command again: equal numbers."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from smoke import COMMAND, ENV, numbers, run


def start_until(checkout, pattern):
    """Start the study in a session of its own; return once a file matches."""
    process = subprocess.Popen(
        COMMAND, cwd=checkout, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    while not list(checkout.glob(pattern)) and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None, "it ended before it could be killed"
    return process


def test_sigkill_of_everything_then_the_same_command_completes(study, checkout):
    process = start_until(checkout, "results/trials/**/state/journal.json")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list((checkout / ".snakemake/locks").iterdir()), "no stale lock: killed too late"
    run(checkout)
    for mine, whole in zip(numbers(checkout), numbers_of_two(study[0]), strict=True):
        pd.testing.assert_frame_equal(mine, whole, check_exact=True)


def numbers_of_two(checkout):
    """The study's numbers as the smoke config has it, whether or not it has grown since."""
    run(checkout)
    return numbers(checkout)


@pytest.mark.slow
def test_sigkill_of_snakemake_alone_leaves_an_orphan_that_does_no_harm(study, checkout):
    process = start_until(checkout, "results/trials/**/.lock")
    process.kill()
    process.wait()
    orphans = Path("/proc").glob("[0-9]*/cmdline")
    assert any(str(checkout.name) in cwd_of(p) and "finetune.py" in read(p) for p in orphans)
    run(checkout)  # while the orphaned jobs go on
    for mine, whole in zip(numbers(checkout), numbers_of_two(study[0]), strict=True):
        pd.testing.assert_frame_equal(mine, whole, check_exact=True)


def read(path):
    try:
        return path.read_text()
    except OSError:  # the process has ended meanwhile
        return ""


def cwd_of(cmdline):
    try:
        return os.readlink(cmdline.with_name("cwd"))
    except OSError:
        return ""
