"""Slurm jobs that a killed run of this folder has left behind.

Free of torch, because the Snakefile imports it.
"""

import shutil
import subprocess
import time
from pathlib import Path

from foretune.core.errors import ForetuneError
from foretune.core.locks import lock_results, remove_stale_locks

JOB_NAME_PREFIX = "foretune_"  # slurm-jobname-prefix in profiles/slurm, with Snakemake's separator


def list_slurm_jobs() -> dict[str, str]:
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
            if name.startswith(JOB_NAME_PREFIX) and folder == here}  # fmt: skip


def refuse_orphans(log=print) -> None:
    """Raise ForetuneError where Slurm still has jobs of a run of this folder that is over."""
    try:
        jobs = list_slurm_jobs()
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
    jobs = list_slurm_jobs()
    if jobs:
        log(f"cancelling {len(jobs)} Slurm jobs: {' '.join(jobs)}")
        done = subprocess.run(["scancel", *jobs], capture_output=True, text=True)
        ending = ("CANCELLED", "COMPLETING")
        # It also complains of a job that has ended in the meantime.
        if done.returncode and any(state not in ending for state in list_slurm_jobs().values()):
            raise ForetuneError(f"scancel: {done.stderr.strip()}")
    told = 0
    while left := list_slurm_jobs():
        if len(left) != told:
            told = len(left)
            log(f"waiting for {told} of them to end")
        time.sleep(1)
    remove_stale_locks()
    log("no Slurm job of this folder is left; the next run may start")
