"""Run the smoke study through the real Snakemake, and read what it prints and writes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd

ENV = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
COMMAND = [
    sys.executable, "workflow_scripts/run_study.py", "--profile", "profiles/local", "--cores", "2",
    "--study", "studies/smoke.yaml",
]  # fmt: skip


def run(checkout, *arguments, check=True):
    """Run the smoke study in a checkout and return what it printed.

    Fails on a non-zero exit status, unless check is False.
    """
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=checkout, env=ENV, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def jobs(printed):
    """Return the number of jobs of each rule, from the table that Snakemake prints."""
    table = re.search(r"job\s+count\n[-\s]+\n(.*?)total\s+\d+", printed, re.S)
    rows = (line.split() for line in table[1].splitlines() if line.strip()) if table else ()
    return {rule: int(count) for rule, count in rows}


def numbers(checkout):
    """Return the analysis tables outcomes, tasks and measures as data frames."""
    return [pd.read_parquet(checkout / f"results/analysis/{name}.parquet")
            for name in ("outcomes", "tasks", "measures")]  # fmt: skip
