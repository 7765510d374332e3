"""Compare the default study's forecasts with the truth, on datasets that it never saw.

The datasets are six image tasks from Debian's packages (held_back_sets.py). They were chosen, with
their captions, before any of them was forecast or fine-tuned. The benchmark first forecasts them
from the bundled study, by `forecast:`. Then the workflow fine-tunes them with the default study's
recipes, like any dataset that is added to it, and every fine-tuned model is tested on its own task
and on the tasks of the default study.
"""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import yaml

from common import ROOT, machine
from foretune.analysis.measure_tables import tabulate_measures
from foretune.analysis.regression import least_squares_line
from foretune.analysis.study_tables import gain_over_zero_shot_error, join_outcomes, read_tables
from foretune.core.code_digest import code_digest
from foretune.core.config import CACHED_METHODS, PROBE_METHODS
from foretune.evaluation.finetuned import BaseModel, FineTunedOutputs, evaluate_model
from foretune.evaluation.on_embeddings import (
    evaluate_adapter,
    evaluate_probe,
    evaluate_zero_shot,
)
from foretune.evaluation.scores import EvaluationOutputs, EvaluationTest
from foretune.forecast.forecast import OUTCOME_RANGES, best_rival, read_study_results
from held_back_sets import make_all

FOLDER = ROOT / "results/held_back"
BUNDLED = ROOT / "resources/mini/study"
KEY = ["dataset", "model", "method"]
GAIN = "gain_over_zero_shot_error"


def run(study: dict, name: str, *targets: str) -> None:
    """Run targets of a study through the workflow."""
    path = FOLDER / f"{name}.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False, allow_unicode=True))
    command = [sys.executable, "workflow_scripts/run_study.py", "--study", str(path)]
    options = ["--profile", "profiles/local", "--cores", "all"]
    subprocess.run([*command, *options, *targets], cwd=ROOT, check=True)


def fine_tune(study: dict, new: dict) -> dict[str, list[str]]:
    """Fine-tune the datasets `new`, and make the files that testing needs.

    Returns the methods of each model.
    """
    methods = {
        model: [
            method
            for method, recipe in study["methods"].items()
            if model in recipe.get("models", [model])
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
    return join_outcomes(read_tables(rows))


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


def baselines(new: list[str]) -> dict[tuple, tuple[float, float]]:
    """Return two simple forecasts by (dataset, model, method, outcome).

    The first is the study's mean, the second the line on the study's best measure besides IIMM.
    """
    tasks, facts = read_study_results(BUNDLED / "analysis")
    files = [ROOT / f"results/measures/{m}/{d}.json" for m in tasks.model.unique() for d in new]
    measured, _ = tabulate_measures([json.loads(path.read_text()) for path in files])
    values, predictions = measured.set_index(["model", "dataset"]), {}
    for (model, method), group in tasks.groupby(["model", "method"]):
        for outcome in OUTCOME_RANGES:
            rows = group[group[outcome].notna()]
            if rows.empty:
                continue
            names = [n for n in facts["measures"] if n != "iimm" and rows[n].notna().all()]
            y = rows[outcome].to_numpy(float)
            rival = names[best_rival(rows[names].to_numpy(float).T, y)]
            fit = least_squares_line(rows[rival].to_numpy(float), y)
            for dataset in new:
                on_line = fit.predict([[1, values.loc[(model, dataset), rival]]])[0]
                on_line = float(np.clip(on_line, *OUTCOME_RANGES[outcome]))
                predictions[dataset, model, method, outcome] = y.mean(), on_line
    return predictions


def compare(forecasts: pd.DataFrame, truth: pd.DataFrame, others: dict) -> pd.DataFrame:
    """Return the forecasts with the true outcomes, the baselines, and all errors."""
    cells = forecasts[forecasts.expected.notna()].copy()
    keys = list(cells[KEY].itertuples(index=False, name=None))
    cells["true"] = [truth.loc[k, o] for k, o in zip(keys, cells.outcome, strict=True)]
    cells["zero_shot"] = [truth.zero_shot[key] for key in keys]
    simple = [others[*key, o] for key, o in zip(keys, cells.outcome, strict=True)]
    cells["mean_error"], cells["rival_error"] = np.abs(np.array(simple).T - cells.true.to_numpy())
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
    for outcome in OUTCOME_RANGES:
        for name, part in (("full, four models", cells[cells.method == "full"]),
                           ("CLIP, all methods", cells[cells.model == "clip_mini"])):  # fmt: skip
            part = part[part.outcome == outcome]
            means = part[["loo_error", "mean_error", "rival_error"]].mean()
            rows.append([outcome, name, len(part), f"{part.held.sum()} ({part.held.mean():.0%})",
                         f"{part.error.abs().mean():.3f}", f"{part.error.mean():+.3f}",
                         *(f"{mean:.3f}" for mean in means)])  # fmt: skip
    columns = ["outcome", "of", "forecasts", "in their 95% interval", "error by IIMM", "bias",
               "promised by the study", "error by the study's mean",
               "error by the best other measure"]  # fmt: skip
    return table(columns, rows)


def details(cells: pd.DataFrame) -> list[str]:
    """Return a table with a row for each dataset, model and method, with its three outcomes."""
    rows = []
    for (dataset, model, method), run_cells in cells.groupby(KEY, sort=False):
        run_cells = run_cells.set_index("outcome")
        row = [dataset, model, method, f"{run_cells.zero_shot.iloc[0]:.3f}",
               f"{run_cells.iimm.iloc[0]:.3f}"]  # fmt: skip
        for outcome in OUTCOME_RANGES:
            if outcome not in run_cells.index:
                row += ["–"] * 3
                continue
            cell = run_cells.loc[outcome]
            mark = "" if cell.held else " ✗"
            row += [f"{cell.expected:.2f} [{cell.low:.2f}, {cell.high:.2f}]",
                    f"{cell.true:.2f}{mark}", f"{cell.error:+.2f}"]  # fmt: skip
        rows.append(row)
    columns = ["dataset", "model", "method", "zero-shot", "iimm"]
    for title in ("gain", "accuracy", "change on other tasks"):
        columns += [f"{title}, forecast", "true", "error"]
    return table(columns, rows)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    study = yaml.safe_load((ROOT / "config.yaml").read_text())
    new, base = make_all(FOLDER), list(study["datasets"])
    run(study | {"forecast": {"datasets": new, "study": str(BUNDLED)}}, "forecast",
        "results/forecast/forecasts.csv")  # fmt: skip
    shutil.copy(ROOT / "results/forecast/forecasts.parquet", FOLDER)
    methods = fine_tune(study, new)
    forecasts = pd.read_parquet(FOLDER / "forecasts.parquet")
    truth = true_outcomes(evaluate_all(study, list(new), methods), base)
    cells = compare(forecasts, truth, baselines(list(new)))
    facts = []
    for name, entry in new.items():
        manifest = json.loads((ROOT / f"results/datasets/{name}/dataset.json").read_text())
        images = " + ".join(str(manifest["splits"][s]["rows"]) for s in ("train", "val", "test"))
        facts.append([name, len(manifest["classes"]), images, entry["source"], entry["licence"]])
    gains = forecasts[forecasts.outcome == GAIN]
    lines = [
        "# Forecasts of datasets that the study never saw", "",
        f"`python benchmarks/held_back.py` made this file. {machine()}.", "",
        "The datasets and their captions were chosen before any of them was forecast or",
        "fine-tuned, and none was left out or changed afterwards. The forecasts are made from the",
        "bundled default study, by `forecast:`. The truth comes from fine-tuning with the default",
        "study's recipes.", "",
        *table(["dataset", "classes", "train + val + test", "source", "licence"], facts), "",
        "## How far the forecasts were off", "", *summary(cells), "",
        "Errors are absolute; the bias is the mean of forecast minus truth. The study promises",
        "the error of such forecasts on its own datasets, each left out in turn (`loo_error`). The",
        "best other measure is the one with the highest R² on the study's datasets.",
        f"{int(gains.outside.sum())} of the {len(gains)} forecasts of gain are beyond the range of "
        "IIMM that the study covers.", "",
        "## Each forecast", "",
        "✗ marks a truth outside the 95% prediction interval of its forecast. The change is the",
        f"mean of accuracy minus zero-shot accuracy over the study's {len(base)} tasks.", "",
        *details(cells), "",
    ]  # fmt: skip
    (ROOT / "benchmarks/held_back.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
