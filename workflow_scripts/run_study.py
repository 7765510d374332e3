"""Run a study with Snakemake, and refuse a second run in the same folder.

This command locks results/ and turns into Snakemake, which holds the lock until it ends. A killed
Snakemake leaves its own lock behind. If ours is free, no run is alive and that lock is removed.
Snakemake gets all other arguments.
"""

import argparse
import os
import sys
from pathlib import Path

from foretune.core import cli
from foretune.core.config import read_study
from foretune.core.locks import lock_results, remove_stale_locks
from job_server import runs_here, start_job_server


def work() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--study", type=Path, default=Path("config.yaml"), help="config file of the study"
    )
    args, others = parser.parse_known_args()
    read_study(args.study)  # Snakemake would print a traceback for an unreadable file
    snakemake = [sys.executable, "-m", "snakemake", *others, "--configfile", str(args.study)]
    if not {"-n", "--dry-run", "--dryrun"} & set(others):  # a dry run needs no lock
        lock_results()
        remove_stale_locks()
        if runs_here(others):
            start_job_server()
    os.execv(sys.executable, snakemake)


if __name__ == "__main__":
    cli.main(work)
