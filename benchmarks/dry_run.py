"""Time Snakemake's dry run by the size of the study.

The studies are that of the first paper (studies/paper.yaml) and multiples of it. Their datasets are
bundled ones under many names; a dry run only checks that the files exist.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from common import ROOT, write_table

PAPER = yaml.safe_load((ROOT / "studies/paper.yaml").read_text())
SOURCE = {"parquet": "resources/mini/digits.parquet"}


def study(models: int = 4, datasets: int = 9, everywhere: bool = False, split: bool = False):
    """Return the config of a study of the paper's methods.

    everywhere: all methods on all models, not only on the first; split: one job per trial.
    """
    specs = list(PAPER["models"].values())
    named = {f"model{i}": specs[i % len(specs)] for i in range(models)}
    methods = {name: dict(recipe) for name, recipe in PAPER["methods"].items()}
    for recipe in methods.values():
        if recipe.pop("models", None) and not everywhere:
            recipe["models"] = ["model0"]
    config = {
        "models": named,
        "datasets": {f"dataset{i}": dict(SOURCE) for i in range(datasets)},
        "methods": methods,
    }
    if split:
        for name in methods:
            methods[name]["parts"] = 10**6  # each trial has a job of its own
    return config


CASES = {  # name -> config
    "the paper's: 4 models, 9 datasets, 6 methods": study(),
    "the same, each of its 1,620 trials a job": study(split=True),
    "ten times the paper's: 90 datasets": study(datasets=90),
    "the same, each of its 16,200 trials a job": study(datasets=90, split=True),
    "40 models, 40 datasets, 6 methods on all": study(40, 40, everywhere=True),
}


def dry_run(config: Path) -> tuple[int, float, float, float]:
    """Return the number of jobs, seconds, CPU seconds and megabytes of a dry run."""
    command = [sys.executable, "-m", "snakemake", "-n", "-q", "rules", "--profile",
               "profiles/local", "--configfile", str(config)]  # fmt: skip
    with tempfile.TemporaryFile("w+") as printed:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=printed, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - started
        printed.seek(0)
        text = printed.read()
    assert status == 0, text
    jobs = int(re.search(r"^total\s+(\d+)", text, re.M)[1])
    return jobs, took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    os.chdir(ROOT)  # a study's paths are relative to the checkout
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, config in CASES.items():
            path = Path(folder, "study.yaml")
            path.write_text(yaml.safe_dump(config, sort_keys=False))
            jobs, took, cpu, memory = dry_run(path)
            rows.append({"study": name, "jobs": f"{jobs:,}", "seconds": f"{took:.1f}",
                         "CPU seconds": f"{cpu:.1f}", "MB": f"{memory:.0f}"})  # fmt: skip
            print(rows[-1], flush=True)
    write_table(
        "dry_run", "A dry run", rows,
        "`snakemake -n -q rules` without results. The "
        "machine had other work on both cores, which doubled the seconds. The code before needed, "
        "at the same time, 4.2 CPU seconds in place of 3.3 for the paper's study.",
    )  # fmt: skip


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
