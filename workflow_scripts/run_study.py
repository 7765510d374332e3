"""Run a study with Snakemake, alone: a second run on the same folder is refused.

This command becomes Snakemake, which keeps its lock to the end. A Snakemake that was killed
leaves a lock of its own behind; where ours is free, no run of this command is alive, so that
one is stale and is taken away. Arguments that are not named here go to Snakemake.
"""

import argparse
import fcntl
import os
import subprocess
import sys
from pathlib import Path

from foretune.config import read_study
from foretune.files import ForetuneError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, default=Path("config.yaml"), help="config file")
    args, others = parser.parse_known_args()
    try:
        read_study(args.study)  # Snakemake would answer an unreadable file with a traceback
    except ForetuneError as error:
        sys.exit(f"error: {error}")
    snakemake = [sys.executable, "-m", "snakemake", *others, "--configfile", str(args.study)]
    if not {"-n", "--dry-run", "--dryrun"} & set(others):  # a dry run needs no lock
        Path("results").mkdir(exist_ok=True)
        lock = os.open("results/.lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("error: another run is at work on this folder's results/; wait for its end")
        if any(Path(".snakemake/locks").glob("*")):
            unlocked = subprocess.run([*snakemake, "--unlock"], capture_output=True, text=True)
            if unlocked.returncode:
                sys.exit(unlocked.stdout + unlocked.stderr)
        os.set_inheritable(lock, True)  # kept by Snakemake, which closes it for its jobs
    os.execv(sys.executable, snakemake)


if __name__ == "__main__":
    main()
