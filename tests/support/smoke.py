"""The smoke study through the real Snakemake: how the tests run it and read what it says."""

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
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=checkout, env=ENV, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def jobs(printed):
    """Rule -> number of jobs, from Snakemake's own table."""
    table = re.search(r"job\s+count\n[-\s]+\n(.*?)total\s+\d+", printed, re.S)
    rows = (line.split() for line in table[1].splitlines() if line.strip()) if table else ()
    return {rule: int(count) for rule, count in rows}


def numbers(checkout):
    tables = [pd.read_parquet(checkout / f"results/analysis/{name}.parquet")
              for name in ("outcomes", "tasks", "measures")]  # fmt: skip
    return tables
