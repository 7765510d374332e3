"""One run of a study at a time in a folder: its lock, and the Slurm jobs of a run that was killed.

Free of torch: the Snakefile imports it.
"""

import fcntl
import getpass
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

from foretune.files import ForetuneError

LOCK = Path("results/.lock")
SNAKEMAKE_LOCKS = Path(".snakemake/locks")
HELD = "FORETUNE_LOCK_HELD_BY"  # a process id, which exec keeps
JOB_NAME = "foretune_"  # slurm-jobname-prefix in profiles/slurm, with Snakemake's separator


def lock_results() -> None:
    """Lock this folder's results for the life of this process, and of what exec makes of it.

    Raises ForetuneError, which names the holder, where another run has the lock.
    """
    if os.environ.get(HELD) == str(os.getpid()):
        return
    LOCK.parent.mkdir(exist_ok=True)
    lock = os.open(LOCK, os.O_CREAT | os.O_RDWR, 0o666)
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
    os.environ[HELD] = str(os.getpid())


def remove_stale_locks() -> None:
    """Take away the locks of a Snakemake that was killed: who holds ours is the only one alive."""
    shutil.rmtree(SNAKEMAKE_LOCKS, ignore_errors=True)


def slurm_jobs() -> dict[str, str]:
    """This folder's jobs that Slurm has not ended yet: id -> state; none where there is no Slurm.

    Raises ForetuneError where Slurm does not answer.
    """
    if not shutil.which("squeue"):
        return {}
    command = ["squeue", "--noheader", "--format=%A|%T|%j|%Z"]
    asked = subprocess.run(command, capture_output=True, text=True)
    if asked.returncode:
        raise ForetuneError(f"squeue: {asked.stderr.strip()}")
    rows = (line.strip().split("|", 3) for line in asked.stdout.splitlines())
    here = str(Path.cwd())
    return {job: state for job, state, name, folder in rows
            if name.startswith(JOB_NAME) and folder == here}  # fmt: skip


def refuse_orphans(log=print) -> None:
    """Raise ForetuneError where Slurm still has jobs of a run of this folder that is over."""
    try:
        jobs = slurm_jobs()
    except ForetuneError as error:  # Slurm may be installed and not used
        log(f"jobs of an earlier run were not looked for: {error}")
        return
    if jobs:
        raise ForetuneError(
            f"Slurm still has {len(jobs)} jobs of an earlier run in this folder (the first: "
            f"{next(iter(jobs))}); this run would write the same files: make clean-orphans"
        )


def cancel_orphans(log=print) -> None:
    """Cancel this folder's Slurm jobs and wait until the last has ended.

    Raises ForetuneError where a run is still at work here, or a job cannot be cancelled.
    """
    lock_results()
    jobs = slurm_jobs()
    if jobs:
        log(f"cancelling {len(jobs)} Slurm jobs: {' '.join(jobs)}")
        done = subprocess.run(["scancel", *jobs], capture_output=True, text=True)
        ending = ("CANCELLED", "COMPLETING")
        # It also complains of a job that has ended in the meantime.
        if done.returncode and any(state not in ending for state in slurm_jobs().values()):
            raise ForetuneError(f"scancel: {done.stderr.strip()}")
    told = 0
    while left := slurm_jobs():
        if len(left) != told:
            told = len(left)
            log(f"waiting for {told} of them to end")
        time.sleep(1)
    remove_stale_locks()
    log("no Slurm job of this folder is left; the next run may start")
