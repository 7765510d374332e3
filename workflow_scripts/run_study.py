"""Run a study with Snakemake, alone: a second run on the same folder is refused.

This command becomes Snakemake, which keeps its lock to the end. A Snakemake that was killed
leaves a lock of its own behind; where ours is free, no run is alive, so that one is stale and is
taken away. Arguments that are not named here go to Snakemake.
"""

import argparse
import os
import sys
from pathlib import Path

from foretune.core import cli
from foretune.core.config import read_study
from foretune.core.locks import lock_results, remove_stale_locks


def work() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, default=Path("config.yaml"), help="config file")
    args, others = parser.parse_known_args()
    read_study(args.study)  # Snakemake would answer an unreadable file with a traceback
    snakemake = [sys.executable, "-m", "snakemake", *others, "--configfile", str(args.study)]
    if not {"-n", "--dry-run", "--dryrun"} & set(others):  # a dry run needs no lock
        lock_results()
        remove_stale_locks()
    os.execv(sys.executable, snakemake)


if __name__ == "__main__":
    cli.main(work)
