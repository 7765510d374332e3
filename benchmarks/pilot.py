"""Measure what a pilot adds to forecasts of the default study, and what it costs.

`--results` is the folder of a completed `studies/forecast.yaml`, `--steps` those of the pilots.
Each of the default study's tasks has a pilot of full fine-tuning by each model, and is then
forecast from the others, with and without the pilots. Pilots are kept in `--pilots`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from common import ROOT, machine
from foretune.analysis.pilots import PILOT_ACCURACY, read_pilots
from foretune.core.config import check_config
from foretune.core.files import write_json
from foretune.core.grid import grid_points
from foretune.core.study_file import read_study
from foretune.forecast.forecaster import fit_forecasters
from foretune.training.pilot import run_pilot
from foretune.training.trials import JobSpec


def run_pilots(results: Path, folder: Path, steps: int) -> list[Path]:
    """Run the pilots that the folder lacks, as rules/pilot.smk does, and return their files."""
    study, method, paths = check_config(read_study(ROOT / "config.yaml")), "full", []
    points = grid_points(study["methods"][method])
    for dataset in study["datasets"]:
        for model, spec in study["models"].items():
            paths.append(folder / str(steps) / model / method / f"{dataset}.json")
            if paths[-1].exists():
                continue
            run = {"model": model, "method": method, "dataset": dataset}
            job = JobSpec(run, study["methods"][method], [points[len(points) // 2]], study["seed"],
                          results / "datasets" / dataset, folder)  # fmt: skip
            text = results / "embeddings" / model / dataset / "text.parquet"
            write_json(run_pilot(job, steps, spec, text, folder / "prepared"), paths[-1])
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--pilots", type=Path, default=ROOT / "results/benchmark_pilots")
    parser.add_argument("--steps", type=int, nargs="+", default=[25, 100])
    args = parser.parse_args()
    tasks = pd.read_parquet(args.results / "analysis/tasks.parquet")
    tasks = tasks[tasks.method == "full"].assign(run=tasks.model + "/" + tasks.method)
    lines = [
        "# What a pilot adds to a forecast", "",
        f"`python benchmarks/pilot.py --results RESULTS` made this table. {machine()}.", "",
        "Full fine-tuning of four models on the default study's twelve tasks, each forecast from",
        "the others. Errors are means of absolute values, in accuracy. The candidate `largest of`",
        "was added after its error on these tasks had been seen: this is no test of it.", "",
        "| pilot | steps | seconds of the steps | pilot's accuracy itself | forecast with pilot | "
        "95% interval: holds, median width | chosen |", "|" + "---|" * 7,
    ]  # fmt: skip
    for steps in (0, *args.steps):
        paths = run_pilots(args.results, args.pilots, steps) if steps else []
        pilots = read_pilots(paths)
        own = tasks.merge(pilots, "inner", ["model", "method", "dataset"]) if steps else tasks
        names = check_config(read_study(ROOT / "config.yaml"))["datasets"]
        own = own[own.dataset.isin(names)].reset_index(drop=True)
        forecaster = fit_forecasters(own, "accuracy")["full"]
        limits, truth = forecaster.add_interval(forecaster.left_out), forecaster.study.accuracy
        held = ((limits.low <= truth) & (truth <= limits.high)).mean()
        files = [json.loads(path.read_text()) for path in paths]
        taken, seconds = (np.mean([file[key] for file in files]) if files else 0
                          for key in ("steps", "seconds"))  # fmt: skip
        itself = f"{(own[PILOT_ACCURACY] - own.accuracy).abs().mean():.3f}" if steps else "–"
        lines.append(
            f"| {steps or 'none'} | {taken:.0f} | {seconds:.0f} | {itself} | "
            f"**{forecaster.error:.3f}** | {held:.0%}, {(limits.high - limits.low).median():.2f} | "
            f"{forecaster.chosen} |"
        )
    (ROOT / "benchmarks/pilot.md").write_text("\n".join([*lines, ""]))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
