"""Run the smoke study through the real Snakemake, and read what it prints and writes."""

import os
import re
import sys
from functools import cache
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

import forked
from foretune.core.parquet import read_metadata, write_parquet

ENV = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
# For a run with next to no job that needs torch, which the job server would import.
NO_SERVER = ENV | {"FORETUNE_JOB_SERVER": "off"}
COMMAND = [
    sys.executable, "workflow_scripts/run_study.py", "--profile", "profiles/local", "--cores", "2",
    "--study", "studies/smoke.yaml",
]  # fmt: skip


def run(checkout, *arguments, check=True, env=ENV):
    """Run the smoke study in a checkout and return what it printed.

    Fails on a non-zero exit status, unless check is False.
    """
    done = run_snakemake(*COMMAND[1:], *arguments, cwd=checkout, env=env)
    assert not check or done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def run_snakemake(*words, cwd, env=ENV, merged=True):
    """Run a command line of Python that becomes Snakemake.

    It is a child that has imported Snakemake and its plugins, which takes a new process five
    seconds.
    """
    import_snakemake()
    return forked.run(*words, cwd=cwd, env=env, merged=merged)


@cache
def import_snakemake():
    from snakemake.cli import get_argument_parser

    get_argument_parser()  # it imports the plugins


def take_fewer_images(checkout):
    """Keep every sixth row of the datasets of the smoke study, and of the one that tests add."""
    for name in ("mnist", "digits", "fashion_mnist"):
        path = checkout / f"resources/mini/{name}.parquet"
        table, facts = pq.read_table(path), read_metadata(path)
        write_parquet(table.take(list(range(0, len(table), 6))), path, facts)


def jobs(printed):
    """Return the number of jobs of each rule, from the table that Snakemake prints."""
    table = re.search(r"job\s+count\n[-\s]+\n(.*?)total\s+\d+", printed, re.S)
    rows = (line.split() for line in table[1].splitlines() if line.strip()) if table else ()
    return {rule: int(count) for rule, count in rows}


def numbers(checkout):
    """Return the analysis tables outcomes, tasks and measures as data frames."""
    return [pd.read_parquet(checkout / f"results/analysis/{name}.parquet")
            for name in ("outcomes", "tasks", "measures")]  # fmt: skip
