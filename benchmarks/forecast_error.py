"""Measure how far forecasts are off, on a study whose outcomes are known.

`--results` is the folder of a completed `studies/forecast.yaml`. Three tables are made:
the default study's twelve tasks, each forecast from the other eleven; the six tasks that were held
back from it, forecast from the twelve; and all tasks, each forecast from all others. The forecaster
was designed on the first table only.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from common import ROOT, machine
from foretune.analysis.outcomes import GAIN
from foretune.analysis.study_tables import (
    StudyFiles,
    gain_over_zero_shot_error,
    summarize_tasks,
    tabulate_tasks,
)
from foretune.core.config import CACHED_METHODS
from foretune.forecast.candidates import IIMM_LINE, MEAN, Candidate, predict
from foretune.forecast.forecaster import Forecaster, fit_forecasters
from foretune.forecast.learning_curve import TEST_NOISE, measure_decay
from foretune.forecast.other_models import fit_pair_forecasters
from foretune.forecast.rehearsal import PREDICTORS

OLD_HELD_BACK = ("clipart", "peoples", "terrains", "cards", "kana", "icons")
TITLES = {"accuracy": "accuracy", GAIN: "gain", "ood_change": "change on other tasks"}
BARS = {  # of issue 14: (full, four models), (CLIP: bitfit, attention, lora)
    "accuracy": (0.055, 0.07), GAIN: (0.105, 0.18), "ood_change": (0.028, 0.036),
}  # fmt: skip
OTHERS = {
    "study's mean": MEAN,
    "line on IIMM": IIMM_LINE,
    "line on zero-shot accuracy": Candidate(("train_zero_shot_accuracy",)),
    "probe itself": Candidate(("probe_accuracy",), itself=True),
    "hidden probe itself": Candidate(("hidden_probe_accuracy",), itself=True),
}


def restrict(outcomes: pd.DataFrame, tasks: pd.DataFrame, trained: list, others: list):
    """Return the tasks of `trained`, whose change on other tasks is over `others` only."""
    kept = outcomes[
        outcomes.evaluated_on.isin([*trained, *others])
        & (outcomes.trained_on.isin(trained) | (outcomes.method == "zero_shot"))
        & (outcomes.evaluated_on.isin(others) | (outcomes.trained_on == outcomes.evaluated_on))
    ]
    selected = tasks[["model", "method", "dataset"]]
    names = ["model", "dataset", "iimm", *PREDICTORS]
    result = summarize_tasks(kept, selected, tasks[names].drop_duplicates(["model", "dataset"]))
    result = result[(result.wise_ft == 1) & ~result.method.isin(CACHED_METHODS)]
    return result.assign(run=result.model + "/" + result.method).reset_index(drop=True)


def forecast_left_out(study: pd.DataFrame) -> pd.DataFrame:
    """Return each row's nested forecasts, intervals and rivals, each dataset left out."""
    parts = []
    for outcome in ("accuracy", "ood_change"):
        for forecaster in fit_forecasters(study, outcome).values():
            limits = forecaster.add_interval(forecaster.left_out)
            cells = describe(forecaster, limits, forecaster.study)
            for name, candidate in OTHERS.items():
                if outcome == "accuracy" or not candidate.itself:
                    cells[name] = leave_out(candidate, forecaster.pool, outcome, forecaster.study)
            parts.append(cells)
    return add_gains(pd.concat(parts, ignore_index=True))


def leave_out(candidate: Candidate, pool: pd.DataFrame, outcome: str, rows: pd.DataFrame):
    """Return a candidate's forecasts of rows from the pool's other datasets."""
    forecasts = np.empty(len(rows))
    for dataset in rows.dataset.unique():
        own = (rows.dataset == dataset).to_numpy()
        forecasts[own] = predict(candidate, pool[pool.dataset != dataset], outcome, rows[own])
    return forecasts


def forecast_new(study: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Return forecasts, intervals and rivals of new rows from a study."""
    parts = []
    for outcome in ("accuracy", "ood_change"):
        for method, forecaster in fit_forecasters(study, outcome).items():
            rows = new[new.method == method].reset_index(drop=True)
            cells = describe(forecaster, forecaster.predict(rows), rows)
            for name, candidate in OTHERS.items():
                if outcome == "accuracy" or not candidate.itself:
                    cells[name] = predict(candidate, forecaster.pool, outcome, rows)
            parts.append(cells)
    return add_gains(pd.concat(parts, ignore_index=True))


def describe(forecaster: Forecaster, limits: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return a table of forecasts next to the truth."""
    cells = rows[["model", "method", "dataset", "zero_shot_accuracy"]].reset_index(drop=True)
    return cells.assign(
        outcome=forecaster.outcome, true=rows[forecaster.outcome].to_numpy(float),
        chosen=str(forecaster.chosen), **{name: limits[name].to_numpy() for name in limits},
    )  # fmt: skip


def add_gains(cells: pd.DataFrame) -> pd.DataFrame:
    """Add the rows of the gains, which follow from those of the accuracies."""
    gains = cells[cells.outcome == "accuracy"].assign(outcome=GAIN)
    for name in ("true", "expected", "low", "high", *OTHERS):
        values = np.clip(gains[name].to_numpy(float), 0, 1)
        gains[name] = gain_over_zero_shot_error(values, gains.zero_shot_accuracy.to_numpy())
    return pd.concat([cells, gains], ignore_index=True)


def summarize(cells: pd.DataFrame, bars: dict | None = None) -> list[str]:
    """Return the lines of a table of mean absolute errors."""
    lines = [
        "| outcome | of | n | error | bar | in the 95% interval | median width | "
        + " | ".join(OTHERS) + " |",
        "|" + "---|" * (7 + len(OTHERS)),
    ]  # fmt: skip
    for outcome, title in TITLES.items():
        for number, (name, methods) in enumerate(
            (("full, four models", ("full",)), ("CLIP: bitfit, attention, lora",
             ("bitfit", "attention", "lora")))
        ):  # fmt: skip
            part = cells[(cells.outcome == outcome) & cells.method.isin(methods)]
            part = part[part.true.notna()]
            held = ((part.low <= part.true) & (part.true <= part.high)).mean()
            errors = [(part[other] - part.true).abs().mean() for other in OTHERS]
            bar = f"{bars[outcome][number]:.3f}" if bars else "–"
            lines.append(
                f"| {title} | {name} | {len(part)} | "
                f"**{(part.expected - part.true).abs().mean():.3f}** | {bar} | {held:.0%} | "
                f"{(part.high - part.low).median():.2f} | "
                + " | ".join("–" if np.isnan(error) else f"{error:.3f}" for error in errors) + " |"
            )  # fmt: skip
    return lines


def check_more_images(results: Path) -> list[str]:
    """Return a table of how well learning curves are continued, by hiding images.

    The points of up to a half, or a quarter, of each task's images are continued to all of them.
    """
    rows = []
    cases = [(name, *case) for name in ("twelve", "others") for case in ((1, 2), (2, 4))]
    twelve = yaml.safe_load((ROOT / "config.yaml").read_text())["datasets"]
    studied = yaml.safe_load((ROOT / "studies/forecast.yaml").read_text())["datasets"]
    for name, hidden, factor in cases:
        errors, flat, held = [], [], []
        for path in sorted((results / "rehearsals").glob("*/*.json")):
            curve = json.loads(path.read_text())["learning_curve"]
            of_twelve = path.stem in twelve
            if len(curve) < 4 or path.stem not in studied or of_twelve != (name == "twelve"):
                continue
            known, truth = curve[:-hidden], curve[-1]["accuracy"]
            # Two points give one exponent; a forecast has three of them.
            exponent, slowest, fastest = measure_decay(known, least=2)
            now, times = known[-1]["accuracy"], truth_ratio(known, curve)
            low, expected, high = (
                1 - (1 - now) * times**-power for power in (slowest, exponent, fastest)
            )
            errors.append(abs(expected - truth))
            flat.append(abs(now - truth))
            held.append(low - TEST_NOISE <= truth <= high + TEST_NOISE)
        rows.append(
            f"| {name} | {factor} | {len(errors)} | {np.mean(errors):.3f} | {np.mean(flat):.3f} | "
            f"{np.mean(held):.0%} |"
        )
    return [
        "| tasks | images, times | curves | error | error if nothing changed | in the interval |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def truth_ratio(known: list, curve: list) -> float:
    """Return how many times as many images the whole curve has as its known part."""
    return curve[-1]["n"] / known[-1]["n"]


def summarize_pairs(studies: dict[str, pd.DataFrame]) -> list[str]:
    """Return a table of how far pairs are forecast from the same dataset on other models."""
    lines = [
        "| study | outcome | method | n | from other models | from other datasets | study's mean | "
        "in the 95% interval | chosen |",
        "|" + "---|" * 9,
    ]
    for name, study in studies.items():
        for outcome in ("accuracy", "ood_change"):
            by_dataset = fit_forecasters(study, outcome)
            for method, forecaster in fit_pair_forecasters(study, outcome).items():
                limits = forecaster.add_interval(forecaster.left_out)
                truth = forecaster.study[outcome]
                held = ((limits.low <= truth) & (truth <= limits.high)).mean()
                lines.append(
                    f"| {name} | {TITLES[outcome]} | {method} | {len(truth)} | "
                    f"**{forecaster.error:.3f}** | {by_dataset[method].error:.3f} | "
                    f"{forecaster.errors[MEAN]:.3f} | {held:.0%} | {forecaster.chosen} |"
                )
    return lines


def read_published() -> pd.DataFrame:
    """Return the tasks of the published accuracies of OpenAI's CLIPs."""
    outcomes = ROOT / "resources/public/outcomes.csv"
    tasks = tabulate_tasks(StudyFiles([], [], [], [], [], outcomes=outcomes)).tasks
    return tasks.assign(run=tasks.model + "/" + tasks.method)


def draw_scatter(cells: dict[str, pd.DataFrame], path: Path) -> None:
    """Draw forecasts against the truth, one panel per outcome and table."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(cells), 3, figsize=(10, 3.3 * len(cells)), layout="tight")
    for row, (title, table) in zip(axes, cells.items(), strict=True):
        for axis, (outcome, name) in zip(row, TITLES.items(), strict=True):
            part = table[table.outcome == outcome]
            for full, marker in ((True, "o"), (False, "x")):
                shown = part[(part.method == "full") == full]
                axis.plot(shown.true, shown.expected, marker, ms=4, alpha=0.7,
                          label="full" if full else "CLIP, other methods")  # fmt: skip
            ends = [part.true.min(), part.true.max()]
            axis.plot(ends, ends, "k-", lw=0.7)
            axis.set(xlabel=f"true {name}", ylabel="forecast", title=title)
        row[0].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    results = parser.parse_args().results
    analysis = results / "analysis"
    outcomes = pd.read_parquet(analysis / "outcomes.parquet")
    tasks = pd.read_parquet(analysis / "tasks.parquet")
    twelve = list(yaml.safe_load((ROOT / "config.yaml").read_text())["datasets"])
    everything = sorted(tasks.dataset.unique())
    tables = {"the twelve": forecast_left_out(restrict(outcomes, tasks, twelve, twelve))}
    six = [name for name in OLD_HELD_BACK if name in everything]
    if six:
        study = restrict(outcomes, tasks, twelve, twelve)
        tables["the six"] = forecast_new(study, restrict(outcomes, tasks, six, twelve))
        tables["all"] = forecast_left_out(restrict(outcomes, tasks, everything, everything))
    draw_scatter(tables, ROOT / "benchmarks/forecast_error.svg")
    heads = {
        "the twelve": ["## The default study: each of its twelve tasks is left out", ""],
        "the six": ["## Six tasks that were held back, forecast from the twelve", ""],
        "all": [f"## The forecast study: each of its {len(everything)} tasks is left out", ""],
    }
    lines = [
        "# How far forecasts are off", "",
        "`python benchmarks/forecast_error.py --results RESULTS` made this file from the results "
        f"of `make forecast-study`. {machine()}.", "",
        "Errors are means of absolute values. The candidate is chosen and fitted without",
        "the dataset that is forecast. The other columns are candidates that are not chosen but",
        "always used. Gains follow from accuracies, with the zero-shot accuracy of the test known.",
        "![Forecasts against the truth](forecast_error.svg)", "",
    ]  # fmt: skip
    for name, cells in tables.items():
        chosen = cells[cells.outcome != GAIN].groupby(["outcome", "method"]).chosen.first()
        lines += heads[name] + summarize(cells, BARS if name == "the twelve" else None)
        lines += ["", "Chosen on the whole study: " + "; ".join(
            f"{TITLES[outcome]} by {method}: {choice}"
            for (outcome, method), choice in chosen.items()) + ".", ""]  # fmt: skip
        cells.to_csv(analysis / f"forecast_error_{name.split()[-1]}.csv", index=False)
    studies = {"the twelve": restrict(outcomes, tasks, twelve, twelve)}
    if six:
        studies["all"] = restrict(outcomes, tasks, everything, everything)
    studies["published CLIPs"] = read_published()
    lines += [
        "## Pairs of a half-done study: each model's dataset is left out", "",
        "The dataset's outcomes by other models are known, as is what they make of other datasets.",
        "", *summarize_pairs(studies), "",
        "## More images: the hidden probe's learning curves, continued", "",
        *check_more_images(results), "",
        "The width of the interval was chosen on the twelve.",
        "",
    ]  # fmt: skip
    (ROOT / "benchmarks/forecast_error.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
