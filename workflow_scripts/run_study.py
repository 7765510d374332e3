"""Run a study with Snakemake, alone: a second run on the same folder is refused.

A Snakemake that was killed leaves its lock behind. Where this command holds its own lock, no
other run of it is alive, so that lock is stale and is taken away. Arguments that are not named
here go to Snakemake.
"""

import argparse
import fcntl
import subprocess
import sys
from pathlib import Path

import yaml


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, default=Path("config.yaml"), help="config file")
    args, others = parser.parse_known_args()
    try:
        # Snakemake would answer an unreadable file with a traceback.
        if not isinstance(yaml.safe_load(args.study.read_text()), dict):
            sys.exit(f"error: {args.study}: not a study: it has no keys")
    except (OSError, yaml.YAMLError) as error:
        sys.exit(f"error: {args.study}: cannot be read: {error}")
    snakemake = [sys.executable, "-m", "snakemake", *others, "--configfile", str(args.study)]
    Path("results").mkdir(exist_ok=True)
    with open("results/.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("error: another run is at work on this folder's results/; wait for its end")
        if any(Path(".snakemake/locks").glob("*")):
            subprocess.run([*snakemake, "--unlock", "--quiet", "all"], check=True)
        return subprocess.run(snakemake).returncode


if __name__ == "__main__":
    sys.exit(main())
