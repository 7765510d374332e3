"""Run Snakemake on this checkout, alone: a second run on the same folder is refused.

A Snakemake that was killed leaves its lock behind. Where this command holds its own lock, no
other run of it is alive, so that lock is stale and is taken away. All arguments go to Snakemake.
"""

import fcntl
import subprocess
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    Path("results").mkdir(exist_ok=True)
    with open("results/.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("error: another run is at work on this folder's results/; wait for it to end")
            return 1
        snakemake = [sys.executable, "-m", "snakemake"]
        if any(Path(".snakemake/locks").glob("*")):
            subprocess.run([*snakemake, "--unlock", "--quiet", "all", *arguments], check=True)
        return subprocess.run([*snakemake, *arguments]).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
