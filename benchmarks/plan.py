"""Compare the times that `make plan` estimates for the default study with those of its jobs.

Run it after `make demo`: it reads logs/benchmarks.
"""

import csv
import subprocess
import sys

import yaml

from common import ROOT, write_table
from foretune.core.config import check_config
from foretune.planning.dataset_sizes import get_dataset_sizes
from foretune.planning.job_times import JobTimes, read_jobs
from foretune.planning.model_costs import get_model_costs


def main() -> None:
    logs = ROOT / "logs/benchmarks"
    study = check_config(yaml.safe_load((ROOT / "config.yaml").read_text()))
    dry_run = [sys.executable, "workflow_scripts/run_study.py", "-n", "--forceall",
               "--profile", "profiles/local"]  # fmt: skip
    printed = subprocess.run(dry_run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    jobs, sizes = read_jobs(printed), get_dataset_sizes(study)
    models = get_model_costs(study, sizes, time_steps=True, tflops=None)
    planned: dict[str, float] = {}
    for job, each in zip(jobs, JobTimes(study, sizes, models).estimate_seconds(jobs), strict=True):
        planned[job.rule] = planned.get(job.rule, 0) + each
    rows, total = [], [0.0, 0.0]
    for rule, expected in sorted(planned.items()):
        files = [*logs.glob(f"{rule}.tsv"), *logs.glob(f"{rule}/**/*.tsv")]
        if not files:
            continue
        took = 0.0
        for file in files:
            with open(file) as lines:
                took += float(next(csv.DictReader(lines, delimiter="\t"))["s"])
        rows.append(row(rule, len(files), expected, took))
        total = [total[0] + expected, total[1] + took]
    rows.append(row("in all", "", *total))
    write_table("plan", "The plan of the default study against its run", rows,
                "Jobs' seconds, from Snakemake's benchmark files.")  # fmt: skip


def row(rule: str, jobs, planned: float, took: float) -> dict:
    return {
        "rule": rule, "jobs": jobs, "planned, min": f"{planned / 60:.1f}",
        "took, min": f"{took / 60:.1f}", "planned over taken": f"{planned / took:.2f}",
    }  # fmt: skip


if __name__ == "__main__":
    main()
