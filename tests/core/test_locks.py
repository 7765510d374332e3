"""File locks: who waits, who is refused, and when a lock ends."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from checkout import ROOT
from foretune.core import locks
from foretune.core.errors import ForetuneError
from foretune.core.locks import acquire_lock, exclusive_lock, lock_results

HOLD_FOLDER = """
import sys
from foretune.core.locks import exclusive_lock
with exclusive_lock(sys.argv[1]):
    print("locked", flush=True)
    input()
"""
# Lock the results, then become another program, as run_study.py becomes Snakemake.
HOLD_RESULTS_THROUGH_EXEC = """
import os, sys
from foretune.core.locks import lock_results
lock_results()
after = "from foretune.core.locks import lock_results; lock_results(); print(1, flush=True)"
os.execv(sys.executable, [sys.executable, "-c", after + "; input()"])
"""


@pytest.fixture
def start():
    """Return a function that starts Python code as a process; all are killed at the end."""
    processes = []

    def start_process(code, *arguments, folder=ROOT):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], cwd=folder, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "workflow_scripts")},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        processes.append(process)
        return process

    yield start_process
    for process in processes:
        process.kill()
        process.communicate()


def test_exclusive_lock_waits_until_a_killed_process_is_gone(start, tmp_path):
    first = start(HOLD_FOLDER, str(tmp_path))
    assert first.stdout.readline() == "locked\n"
    second = start(HOLD_FOLDER, str(tmp_path))
    assert "waiting for another process" in second.stdout.readline()
    first.send_signal(signal.SIGKILL)
    assert second.stdout.readline() == "locked\n"
    assert (tmp_path / ".lock").exists()


def test_exclusive_lock_ends_with_its_block_and_keeps_its_file(tmp_path):
    for _ in range(2):
        with exclusive_lock(tmp_path / "output"):
            assert acquire_lock(tmp_path / "output/.lock") is None
    with pytest.raises(RuntimeError), exclusive_lock(tmp_path / "output"):
        raise RuntimeError
    os.close(acquire_lock(tmp_path / "output/.lock"))


def test_lock_results_survives_exec_names_its_holder_and_ends_with_the_process(
    start, tmp_path, monkeypatch
):
    holder = start(HOLD_RESULTS_THROUGH_EXEC, folder=tmp_path)
    assert holder.stdout.readline() == "1\n"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(locks.LOCK_HOLDER_VARIABLE, "0")
    with pytest.raises(ForetuneError, match=rf"another run is at work.*process {holder.pid}\)"):
        lock_results()
    holder.kill()
    holder.communicate()
    os.close(acquire_lock(locks.RESULTS_LOCK))


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_locks_explain_a_file_system_without_locks(number, tmp_path, monkeypatch):
    def refuse(descriptor, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks, "lock_descriptor", refuse)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(locks.LOCK_HOLDER_VARIABLE, "0")
    refused = pytest.raises(
        ForetuneError, match=r"output/\.lock: this file system has no file locks"
    )
    with refused, exclusive_lock("output"):
        pass
    with pytest.raises(ForetuneError, match=r"results/\.lock: .*use another disk"):
        lock_results()


def test_acquire_lock_raises_other_errors_unchanged(tmp_path, monkeypatch):
    def fail(descriptor, **options):
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(locks, "lock_descriptor", fail)
    with pytest.raises(OSError, match="broken disk"):
        acquire_lock(tmp_path / "lock")
