"""Locks: one run at a time per results folder, and one writer at a time per output folder.

Free of torch, because the Snakefile imports it.
"""

import fcntl
import getpass
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foretune.core.errors import ForetuneError


@contextmanager
def exclusive_lock(folder: Path | str) -> Iterator[None]:
    """Hold the lock of an output folder; wait for another process that holds it.

    A killed Snakemake leaves its jobs running, and its next run starts them again: the
    second waits, then finds the first one's work.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: another process is writing here; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


RESULTS_LOCK = Path("results/.lock")
SNAKEMAKE_LOCKS = Path(".snakemake/locks")
LOCK_HOLDER_VARIABLE = "FORETUNE_LOCK_HELD_BY"  # a process id, which exec keeps


def lock_results() -> None:
    """Lock this folder's results for the life of this process, and of what exec makes of it.

    Raises ForetuneError, which names the holder, where another run has the lock.
    """
    if os.environ.get(LOCK_HOLDER_VARIABLE) == str(os.getpid()):
        return
    RESULTS_LOCK.parent.mkdir(exist_ok=True)
    lock = os.open(RESULTS_LOCK, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 1000).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise ForetuneError(
            f"another run is at work on this folder's results/ ({holder}); wait for its end"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{getpass.getuser()}, {platform.node()}, process {os.getpid()}\n".encode(), 0)
    os.set_inheritable(lock, True)  # by exec; Snakemake closes it for its jobs
    os.environ[LOCK_HOLDER_VARIABLE] = str(os.getpid())


def remove_stale_locks() -> None:
    """Take away the locks of a Snakemake that was killed: who holds ours is the only one alive."""
    shutil.rmtree(SNAKEMAKE_LOCKS, ignore_errors=True)
