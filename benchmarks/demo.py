"""Time the default study by its stages, at one or several revisions of this repository.

    python benchmarks/demo.py [--datasets N] [REVISION ...]      (the default: HEAD)

Each revision is cloned and run as `make demo` runs it, with this Python; with `--datasets 4` only
on the first four datasets. Later ones are compared with the first: the largest difference of an
accuracy in results/analysis/outcomes. The machine should have nothing else to do.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import pandas as pd
import yaml

from common import ROOT, write_table

COMMAND = [sys.executable, "workflow_scripts/run_study.py", "--study", "demo.yaml", "--profile",
           "profiles/local", "--cores", "all"]  # fmt: skip
FEW_SECONDS = 5.0  # stages below are one row


def run_study(revision: str, folder: Path, datasets: int | None) -> float:
    """Clone a revision into the folder and run its default study; return the seconds it took.

    datasets: how many of the datasets, all if None.
    """
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    subprocess.run(["git", "checkout", "--quiet", revision], cwd=folder, check=True)
    study = yaml.safe_load((folder / "config.yaml").read_text())
    study["datasets"] = dict(list(study["datasets"].items())[:datasets])
    (folder / "demo.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    started = time.perf_counter()
    with open(folder / "printed", "w") as printed:
        subprocess.run(COMMAND, cwd=folder, check=True, stdout=printed, stderr=printed,
                       env={**os.environ, "PATH": path})  # fmt: skip
    return time.perf_counter() - started


def read_stages(folder: Path) -> dict[str, list[float]]:
    """Return the seconds of each rule's jobs."""
    stages = defaultdict(list)
    benchmarks = folder / "logs/benchmarks"
    for path in benchmarks.rglob("*.tsv"):
        rule = path.relative_to(benchmarks).parts[0].removesuffix(".tsv")
        with open(path) as file:
            stages[rule] += [float(row["s"]) for row in csv.DictReader(file, delimiter="\t")]
    return stages


def compare_outcomes(folder: Path, first: Path) -> str:
    """Return the largest difference between the accuracies of two studies."""
    key = ["model", "method", "wise_ft", "trained_on", "evaluated_on", "split"]
    tables = [pd.read_parquet(f / "results/analysis/outcomes.parquet") for f in (first, folder)]
    before, after = (table.set_index(key).accuracy.sort_index() for table in tables)
    return f"{(before - after).abs().max():.3f} of {len(before)} accuracies"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", type=int)
    parser.add_argument("revisions", nargs="*", default=["HEAD"])
    args = parser.parse_args()
    revisions = args.revisions
    rows: dict[str, dict] = defaultdict(dict)
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch, str(number)) for number in range(len(revisions))]
        for revision, folder in zip(revisions, folders, strict=True):
            whole = run_study(revision, folder, args.datasets)
            for stage, seconds in read_stages(folder).items():
                stage = stage if sum(seconds) > FEW_SECONDS else "others"
                jobs, total = rows[stage].get(revision, (0, 0.0))
                rows[stage][revision] = jobs + len(seconds), total + sum(seconds)
            rows["all, from start to end"][revision] = None, whole
            if folder != folders[0]:
                note = compare_outcomes(folder, folders[0])
                rows["largest difference to the first"][revision] = None, note
    table = []
    for stage, by_revision in rows.items():
        row = {"stage": stage}
        for revision, (jobs, value) in by_revision.items():
            row[f"{revision}, jobs"] = jobs or ""
            row[f"{revision}, s"] = value if isinstance(value, str) else f"{value:.0f}"
        table.append(row)
    some = f" on {args.datasets} of its datasets" if args.datasets else ""
    write_table("demo", f"The default study{some}", table,
                f"The arguments were `{' '.join(sys.argv[1:])}`. Seconds of jobs, two of which run "
                "at a time on two cores.")  # fmt: skip


if __name__ == "__main__":
    main()
