"""Compare the bundled study's forecasts with the truth, on datasets that it never saw.

The datasets are six image tasks from Debian's and npm's packages (held_back_sets.py). They were
drawn from 22, with their captions, before any of them was forecast or fine-tuned. The benchmark
first forecasts them from the bundled study, by `forecast:`. Then the workflow fine-tunes them with
the study's recipes, like any dataset that is added to it, and every fine-tuned model is tested on
its own task and on the tasks of the study. It needs the results of `make forecast-study`.
"""

import argparse
import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import yaml

from common import ROOT, machine
from foretune.analysis.study_tables import gain_over_zero_shot_error, join_outcomes, read_tables
from foretune.core.code_digest import code_digest
from foretune.core.config import CACHED_METHODS, PROBE_METHODS
from foretune.evaluation.finetuned import BaseModel, FineTunedOutputs, evaluate_model
from foretune.evaluation.on_embeddings import (
    evaluate_adapter,
    evaluate_probe,
    evaluate_zero_shot,
)
from foretune.evaluation.scores import OUTCOME_SCHEMA, EvaluationOutputs, EvaluationTest
from foretune.forecast.candidates import IIMM_LINE, MEAN, Candidate, predict
from foretune.forecast.forecaster import fit_forecasters
from foretune.forecast.inputs import read_study_results
from held_back_sets import make_all

FOLDER = ROOT / "results/held_back"
BUNDLED = ROOT / "resources/mini/study"
KEY = ["dataset", "model", "method"]
GAIN = "gain_over_zero_shot_error"
OUTCOMES = ("accuracy", GAIN, "ood_change")
IMAGE_METHODS = ("bitfit", "attention", "lora")
RIVALS = {
    "study's mean": MEAN, "line on IIMM": IIMM_LINE,
    "probe itself": Candidate(("probe_accuracy",), itself=True),
    "hidden probe itself": Candidate(("hidden_probe_accuracy",), itself=True),
}  # fmt: skip


def run(study: dict, name: str, *targets: str) -> None:
    """Run targets of a study through the workflow."""
    path = FOLDER / f"{name}.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False, allow_unicode=True))
    command = [sys.executable, "workflow_scripts/run_study.py", "--study", str(path)]
    options = ["--profile", "profiles/local", "--cores", "all"]
    subprocess.run([*command, *options, *targets], cwd=ROOT, check=True)


def fine_tune(study: dict, new: dict, chosen: list[str]) -> dict[str, list[str]]:
    """Fine-tune the datasets `new` by the chosen methods, and make the files that testing needs.

    Returns the methods of each model, with those that train on cached embeddings.
    """
    methods = {
        model: [
            method
            for method, recipe in study["methods"].items()
            if model in recipe.get("models", [model])
            and (method in chosen or method in CACHED_METHODS)
        ]
        for model in study["models"]
    }
    every = study["datasets"] | new
    targets = [f"results/trials/{model}/{method}/{name}/0/best.json"
               for model in methods for method in methods[model] for name in new]  # fmt: skip
    targets += [f"results/embeddings/{model}/{name}/{file}.parquet"
                for model in methods for name in every for file in ("test", "text")]  # fmt: skip
    run(study | {"datasets": every}, "study", *targets)
    return methods


def evaluate_all(study: dict, new: list[str], methods: dict[str, list[str]]) -> pd.DataFrame:
    """Accuracy of every model, zero-shot and tuned on each of `new`, on all tasks' own tests."""
    every, results, rows = [*study["datasets"], *new], ROOT / "results", []
    for model in methods:
        caches = results / "embeddings" / model
        tests = [
            EvaluationTest(
                results / "datasets" / name,
                caches / name / "test.parquet",
                caches / name / "text.parquet",
            )
            for name in every
        ]
        for method in ("zero_shot", *methods[model]):
            out = FOLDER / "evaluations" / model / method
            kinds = ("rows", "classes", "confusions")
            outputs = EvaluationOutputs(
                FOLDER / "predictions", *(out / f"{kind}.parquet" for kind in kinds)
            )
            chosen = [results / f"trials/{model}/{method}/{name}/0/best.json" for name in new]
            if method == "zero_shot":
                evaluate_zero_shot(model, tests, outputs)
            elif method in PROBE_METHODS:
                # A probe has no head for other tasks.
                evaluate_probe(chosen, tests[-len(new) :], outputs)
            elif method in CACHED_METHODS:
                evaluate_adapter(chosen, tests, outputs)
            else:
                base = BaseModel(study["models"][model], caches, results / "prepared")
                outputs = FineTunedOutputs(**vars(outputs), drift=out / "drift.parquet")
                evaluate_model(chosen, base, tests, outputs, code_digest("evaluation.finetuned"))
            rows.append(outputs.outcomes)
    return join_outcomes(read_tables(rows, OUTCOME_SCHEMA))


def true_outcomes(rows: pd.DataFrame, base: list[str]) -> pd.DataFrame:
    """Return the outcomes on each new dataset, with forgetting on the study's tasks `base`."""
    rows = rows[rows.method != "zero_shot"].rename(columns={"trained_on": "dataset"})
    own = rows[rows.dataset == rows.evaluated_on].set_index(KEY)
    others = rows[rows.evaluated_on.isin(base)]
    change = (others.accuracy - others.zero_shot_accuracy).groupby([others[k] for k in KEY]).mean()
    return pd.DataFrame({
        "zero_shot": own.zero_shot_accuracy, "accuracy": own.accuracy, "ood_change": change,
        GAIN: gain_over_zero_shot_error(own.accuracy, own.zero_shot_accuracy),
    })  # fmt: skip


def forecast_by_rivals(forecasts: pd.DataFrame) -> dict[tuple, dict[str, float]]:
    """Return what candidates that are always used forecast, by (dataset, model, method, outcome).

    Gains follow from accuracies.
    """
    tasks, _ = read_study_results(BUNDLED / "analysis")
    known = {outcome: fit_forecasters(tasks, outcome) for outcome in ("accuracy", "ood_change")}
    rivals = {}
    for cell in forecasts[~forecasts.measured].itertuples():
        outcome = "accuracy" if cell.outcome == GAIN else cell.outcome
        forecaster = known.get(outcome, {}).get(cell.method)
        if forecaster is None:
            continue
        values: dict = {"run": f"{cell.model}/{cell.method}"}
        for kind in ("measures", "rehearsals"):
            path = ROOT / f"results/{kind}/{cell.model}/{cell.dataset}.json"
            values |= json.loads(path.read_text())["measures"]
        new, found = pd.DataFrame([values]), {}
        for name, candidate in RIVALS.items():
            if candidate.itself and outcome != "accuracy":
                continue
            value = predict(candidate, forecaster.pool, outcome, new)[0]
            if cell.outcome == GAIN:
                value = gain_over_zero_shot_error(np.clip(value, 0, 1), cell.zero_shot)
            found[name] = float(value)
        rivals[cell.dataset, cell.model, cell.method, cell.outcome] = found
    return rivals


def compare(forecasts: pd.DataFrame, truth: pd.DataFrame, rivals: dict) -> pd.DataFrame:
    """Return the forecasts with the true outcomes, the errors of rivals, and all errors."""
    cells = forecasts[forecasts.expected.notna() & ~forecasts.measured].copy()
    cells = cells[cells.outcome.isin(OUTCOMES)]
    keys = list(cells[KEY].itertuples(index=False, name=None))
    cells = cells[[key in truth.index for key in keys]]
    keys = [key for key in keys if key in truth.index]
    cells["true"] = [truth.loc[k, o] for k, o in zip(keys, cells.outcome, strict=True)]
    for name in RIVALS:
        cells[name] = [
            abs(rivals[*key, outcome].get(name, np.nan) - true)
            for key, outcome, true in zip(keys, cells.outcome, cells.true, strict=True)
        ]
    cells["error"] = cells.expected - cells.true
    cells["held"] = (cells.low <= cells.true) & (cells.true <= cells.high)
    return cells


def table(columns: list[str], rows: list[list]) -> list[str]:
    """Return the lines of a Markdown table."""
    text = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return text + [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]


def summary(cells: pd.DataFrame) -> list[str]:
    """Return the table of the mean errors of each outcome."""
    rows = []
    for outcome in OUTCOMES:
        for name, part in (("full, four models", cells[cells.method == "full"]),
                           ("CLIP: bitfit, attention, lora",
                            cells[cells.method.isin(IMAGE_METHODS)])):  # fmt: skip
            part = part[part.outcome == outcome]
            if part.empty:
                continue
            errors = [f"{part[rival].mean():.3f}" if part[rival].notna().any() else "–"
                      for rival in RIVALS]  # fmt: skip
            rows.append([outcome, name, len(part), f"**{part.error.abs().mean():.3f}**",
                         f"{part.error.mean():+.3f}", f"{part.held.mean():.0%}",
                         f"{(part.high - part.low).median():.2f}", f"{part.loo_error.mean():.3f}",
                         *errors])  # fmt: skip
    columns = ["outcome", "of", "forecasts", "error", "bias", "in their 95% interval",
               "median width", "promised by the study", *RIVALS]  # fmt: skip
    return table(columns, rows)


def details(cells: pd.DataFrame) -> list[str]:
    """Return a table with a row for each dataset, model and method, with its three outcomes."""
    rows = []
    for (dataset, model, method), run_cells in cells.groupby(KEY, sort=False):
        run_cells = run_cells.set_index("outcome")
        row = [dataset, model, method, f"{run_cells.zero_shot.iloc[0]:.3f}"]
        for outcome in OUTCOMES:
            if outcome not in run_cells.index:
                row += ["–"] * 3
                continue
            cell = run_cells.loc[outcome]
            mark = "" if cell.held else " ✗"
            row += [f"{cell.expected:.2f} [{cell.low:.2f}, {cell.high:.2f}]",
                    f"{cell.true:.2f}{mark}", f"{cell.error:+.2f}"]  # fmt: skip
        rows.append(row)
    columns = ["dataset", "model", "method", "zero-shot"]
    for title in ("accuracy", "gain", "change on other tasks"):
        columns += [f"{title}, forecast", "true", "error"]
    return table(columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=["full", *IMAGE_METHODS])
    chosen = parser.parse_args().methods
    FOLDER.mkdir(parents=True, exist_ok=True)
    study = yaml.safe_load((ROOT / "studies/forecast.yaml").read_text())
    new, base = make_all(FOLDER), list(study["datasets"])
    run(study | {"forecast": {"datasets": new, "study": str(BUNDLED)}}, "forecast",
        "results/forecast/forecasts.csv")  # fmt: skip
    shutil.copy(ROOT / "results/forecast/forecasts.parquet", FOLDER)
    methods = fine_tune(study, new, chosen)
    write_comparison(new, true_outcomes(evaluate_all(study, list(new), methods), base), base)


def write_comparison(new: dict, truth: pd.DataFrame, base: list[str]) -> None:
    """Write benchmarks/held_back.md from the kept forecasts and the true outcomes."""
    forecasts = pd.read_parquet(FOLDER / "forecasts.parquet")
    cells = compare(forecasts, truth, forecast_by_rivals(forecasts))
    facts = []
    for name, entry in new.items():
        manifest = json.loads((ROOT / f"results/datasets/{name}/dataset.json").read_text())
        images = " + ".join(str(manifest["splits"][s]["rows"]) for s in ("train", "val", "test"))
        facts.append([name, len(manifest["classes"]), images, entry["source"], entry["licence"]])
    lines = [
        "# Forecasts of datasets that the study never saw", "",
        f"`python benchmarks/held_back.py --methods {' '.join(sorted(set(cells.method)))}` made "
        f"this file. {machine()}.", "",
        "The datasets and their captions were drawn before any of them was forecast or",
        "fine-tuned, and none was left out or changed afterwards. The forecasts are made from the",
        "bundled study, by `forecast:`. The truth comes from fine-tuning with the study's recipes.",
        "",
        *table(["dataset", "classes", "train + val + test", "source", "licence"], facts), "",
        "## How far the forecasts were off", "", *summary(cells), "",
        "Errors are absolute; the bias is the mean of forecast minus truth. The study promises",
        "the error of such forecasts on its own datasets, each left out in turn (`loo_error`). The",
        "last columns are candidates that are always used instead of being chosen.",
        "", "## Each forecast", "",
        "✗ marks a truth outside the 95% interval of its forecast. The change is the mean of",
        f"accuracy minus zero-shot accuracy over the study's {len(base)} tasks.", "",
        *details(cells), "",
    ]  # fmt: skip
    (ROOT / "benchmarks/held_back.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
