"""Ask Slurm for GPUs; find, refuse and cancel its jobs that a killed run of this folder has left.

Free of torch, because the Snakefile imports it.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from foretune.core.errors import ForetuneError
from foretune.core.locks import lock_results, remove_stale_locks

JOB_NAME_PREFIX = "foretune_"  # slurm-jobname-prefix in profiles/slurm, with Snakemake's separator


def request_gpus(kind: str, option: str, extra: str) -> dict[str, int | str]:
    """Return the resources by which Snakemake's Slurm plugin asks for one GPU.

    Args:
        kind: Slurm's name for the kind of GPU; empty for any.
        option: `gpus`, or `gres` for sites that know GPUs by this option of sbatch only.
        extra: further options of sbatch, of every job.

    Raises:
        ForetuneError: the plugin would refuse the name when it submits the first GPU job.
    """
    if option not in ("gpus", "gres"):
        raise ForetuneError(f"gpu_option: {option!r} is neither gpus nor gres")
    if not re.fullmatch(r"[A-Za-z0-9_.-]*", kind):
        raise ForetuneError(
            f"gpu_type: {kind!r} is no name of a kind of GPU; give a100 of gpu:a100:4 "
            "in `sinfo -o %G`"
        )
    if option == "gpus" and "-" in kind:  # which the plugin refuses in a name
        return {"gpu": 0, "slurm_extra": f"--gpus-per-node={kind}:1 {extra}".strip()}
    if option == "gpus":
        return {"gpu_model": kind} if kind else {}
    if "-" in kind:
        raise ForetuneError(
            f"gpu_type: Snakemake cannot ask for {kind!r} by --gres because of its hyphen; leave "
            "gpu_type empty, and choose nodes by their feature: rules: {finetune_model: "
            "{constraint: a100}} and so on"
        )
    return {"gpu": 0, "gres": f"gpu:{kind}:1" if kind else "gpu:1"}


def list_slurm_jobs() -> dict[str, str]:
    """Return the state of each unfinished Slurm job of this folder, by job id.

    The result is empty on a machine without Slurm.

    Raises:
        ForetuneError: Slurm does not answer.
    """
    if not shutil.which("squeue"):
        return {}
    command = ["squeue", "--noheader", "--format=%A|%T|%j|%Z"]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise ForetuneError(f"squeue: {answer.stderr.strip()}")
    rows = (line.strip().split("|", 3) for line in answer.stdout.splitlines())
    this_folder = str(Path.cwd())
    return {job: state for job, state, name, folder in rows
            if name.startswith(JOB_NAME_PREFIX) and folder == this_folder}  # fmt: skip


def refuse_orphans(log: Callable[[str], None] = print) -> None:
    """Raise ForetuneError if Slurm still has jobs of an earlier run of this folder."""
    try:
        jobs = list_slurm_jobs()
    except ForetuneError as error:  # Slurm may be installed but not in use
        log(f"could not look for jobs of an earlier run: {error}")
        return
    if jobs:
        raise ForetuneError(
            f"Slurm still has {len(jobs)} jobs of an earlier run in this folder (the first is "
            f"{next(iter(jobs))}), and this run would write the same files: make clean-orphans"
        )


def cancel_orphans(log: Callable[[str], None] = print) -> None:
    """Cancel this folder's Slurm jobs and wait until all have ended.

    Raises:
        ForetuneError: another run is at work in this folder, or a job cannot be cancelled.
    """
    lock_results()
    jobs = list_slurm_jobs()
    if jobs:
        log(f"cancelling {len(jobs)} Slurm jobs: {' '.join(jobs)}")
        done = subprocess.run(["scancel", *jobs], capture_output=True, text=True)
        ending = ("CANCELLED", "COMPLETING")
        # scancel also fails for a job that has ended in the meantime.
        if done.returncode and any(state not in ending for state in list_slurm_jobs().values()):
            raise ForetuneError(f"scancel: {done.stderr.strip()}")
    logged_count = 0
    while remaining := list_slurm_jobs():
        if len(remaining) != logged_count:
            logged_count = len(remaining)
            log(f"waiting for {logged_count} of them to end")
        time.sleep(1)
    remove_stale_locks()
    log("no Slurm job of this folder is left; the next run may start")
