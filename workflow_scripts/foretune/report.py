"""The report: one HTML file with its figures, tables, images and scripts inside."""

import base64
import functools
import io
import json
import math
from pathlib import Path

import altair as alt
import jinja2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import vl_convert
import yaml

from foretune.datasets import decode, title_of
from foretune.figures import (
    COLOURS,
    convergence,
    curves,
    first_of,
    fit_sentence,
    heat_map,
    scatter,
    trade_off,
)
from foretune.files import whole_file
from foretune.tables import read_metadata
from foretune.wording import known, number, percent, plain, points, text

FEW = 6  # below so many datasets, a correlation says next to nothing
OUTCOMES = {
    "gain_over_zero_shot_error": "gain over zero-shot error",
    "ood_change": "change on other tasks",
    "accuracy": "accuracy",
    "shifted_change": "change on shifted tests",
}
STATISTICS = ["model", "method", "measure", "outcome", "n", "spearman", "p_asymptotic",
              "p_permutation", "slope", "intercept", "r2", "p_slope", "note"]  # fmt: skip


def build_report(
    analysis: Path,
    epochs: list[Path],
    datasets: list[Path],
    provenance: Path,
    output: Path,
    title: str,
) -> None:
    """Write the report of a study into the one file `output`."""
    analysis = Path(analysis)
    tasks = pd.read_parquet(analysis / "tasks.parquet")
    outcomes = pd.read_parquet(analysis / "outcomes.parquet")
    # Interpolations have a figure of their own.
    outcomes = outcomes[outcomes.wise_ft.fillna(1) == 1]
    measures = read_metadata(analysis / "tasks.parquet")["measures"]
    rows = json.loads((analysis / "statistics.json").read_text())
    statistics = pd.DataFrame(rows, columns=STATISTICS)
    measured = pd.read_parquet(analysis / "measures.parquet")
    wise_ft = pd.read_parquet(analysis / "wise_ft.parquet")
    how_many = pd.read_parquet(analysis / "curves.parquet")
    moved = pd.read_parquet(analysis / "movement.parquet")
    trials = pd.concat([pd.read_parquet(path) for path in epochs]) if epochs else None
    described = [describe_dataset(Path(path)) for path in datasets]
    facts = json.loads(Path(provenance).read_text())
    for dataset in described:  # what the config says of a dataset stands before its own
        said = facts.get("config", {}).get("datasets", {}).get(dataset["name"], {})
        # A shifted test has its own entry there, but its dataset's captions.
        own = said.get("shifted", {}).get(dataset["split"], said)
        said = [("caption", said), ("licence", own), ("source", own)]
        dataset |= {key: entry[key] for key, entry in said if key in entry}
    shifted = bool(tasks.shifted_change.notna().any())
    shown = {k: v for k, v in OUTCOMES.items() if shifted or k != "shifted_change"}
    order = list(dict.fromkeys([d["name"] for d in described] + sorted(set(tasks.dataset))))

    runs, charts, converging = [], {}, []
    for (model, method), group in tasks.groupby(["model", "method"], sort=False):
        fits = of(statistics, model, [method])
        drawn = {"heat": heat_map(of(outcomes, model, [method, "zero_shot"]), order)}
        if measures:
            drawn["scatter"] = scatter(group, fits.to_dict("records"), measures, shown)
        if trials is not None:
            drawn["curves"] = curves(of(trials, model, [method]), group)
        for kind, chart in drawn.items():
            charts[f"{kind}-{len(runs)}"] = chart
            chart["spec"]["description"] = f"{chart['label']}: {model}, {method}"
        fit = fits[(fits.measure == "iimm") & (fits.outcome == "gain_over_zero_shot_error")]
        fit = next(iter(fit.to_dict("records")), None)
        numbers = group[["zero_shot_accuracy", "accuracy", *OUTCOMES]].astype(float)
        runs.append({
            "model": model, "method": method, "n": len(group), "kinds": list(drawn),
            "mean": numbers.mean().to_dict(), "rho": fit and fit["spearman"],
            "fit": fit and fit_sentence(fit | ({"note": ""} if known(fit["spearman"]) else {})),
        })  # fmt: skip
    for model in dict.fromkeys(how_many.model[how_many.relative.notna()]):
        chart = convergence(how_many[how_many.model == model], measures)
        chart["spec"]["description"] = f"{chart['label']}: {model}"
        name = f"converge-{len(converging)}"
        charts[name] = chart
        converging.append({"model": model, "name": name})
    trading = []
    for model, group in tasks.groupby("model", sort=False):
        if chart := trade_off(group, wise_ft[wise_ft.model == model]):
            chart["spec"]["description"] = f"{chart['label']}: {model}"
            trading.append({"model": model, "name": f"trade-{len(trading)}"})
            charts[trading[-1]["name"]] = chart
    # Shifted tests may be fewer than datasets: their notes say so, and this is about the study.
    few = statistics.n[(statistics.n > 0) & (statistics.outcome != "shifted_change")]
    few = few[few < FEW]

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent, points=points, number=number, plain=plain, text=text
    )
    environment.tests["known"] = known
    page = environment.get_template("report.html.j2").render(
        title=title, runs=runs, charts=charts, measures=measures, outcomes=shown,
        first_measure=first_of(measures), order=order, datasets=described,
        tables=tables(tasks, statistics, measured, measures, moved, shifted), facts=facts,
        colours=COLOURS,
        shifted=shifted, converging=converging, trading=trading, notes=count_notes(measured),
        config=yaml.safe_dump(facts.get("config", {}), sort_keys=False, allow_unicode=True),
        # With n datasets, the best permutation p-value of a rank correlation is 2 / n!.
        few=None if few.empty else (few.min(), min(1.0, 2 / math.factorial(int(few.min())))),
        vega=vega_bundle(),
    )  # fmt: skip
    with whole_file(output) as beside:
        beside.write_text(page, encoding="utf-8")


@functools.cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, of the version that Altair writes for."""
    version = alt.SCHEMA_VERSION.lstrip("v").rsplit(".", 1)[0]
    return vl_convert.javascript_bundle(vl_version=version).replace("</script", r"<\/script")


def of(frame: pd.DataFrame, model: str, methods: list[str]) -> pd.DataFrame:
    chosen = (frame.model == model) & frame.method.isin(methods)
    return frame[chosen].reset_index(drop=True)


# Tables: a cell is what is shown and what is raw; the page sorts by the raw, CSV holds it.

RUN = {"model": text, "method": text, "dataset": text}
RESULTS = {
    "dataset": text, "method": text, "zero_shot_accuracy": percent, "accuracy": percent,
    "gain_over_zero_shot_error": number, "ood_change": points, "shifted_change": points,
    "chance": percent,
}  # fmt: skip
CHOSEN = {"learning_rate": plain, "weight_decay": plain, "best_epoch": plain,
          "val_accuracy": percent}  # fmt: skip
MOVED = dict.fromkeys(
    ["iimm_before", "iimm_after", "iimm_change", "bound", "moved", "moved_texts", "wasserstein",
     "wasserstein_bound"], number,
) | {"wasserstein_n": plain}  # fmt: skip
WORDS = {"measure", "outcome", "note", *RUN}
HEADS = {
    "zero_shot_accuracy": "zero-shot", "gain_over_zero_shot_error": "gain", "r2": "R²",
    "ood_change": "other tasks (points)", "shifted_change": "shifted tests (points)",
    "spearman": "Spearman’s ρ", "p_slope": "p of slope",
    "p_permutation": "p, permutation", "p_asymptotic": "p, asymptotic",
    "val_accuracy": "validation accuracy",
}  # fmt: skip


def table(frame: pd.DataFrame, caption: str, columns: dict) -> dict:
    head = [(key, HEADS.get(key, key.replace("_", " ")), key not in WORDS) for key in columns]
    rows = [
        [(show(row[key]), row[key] if known(row[key]) else "") for key, show in columns.items()]
        for row in frame.to_dict("records")
    ]
    return {"caption": caption, "head": head, "rows": rows}


def with_intervals(frame: pd.DataFrame, measures: list[str]) -> dict:
    """The table of measures, each with the half-width of its interval where it has one."""
    columns = {"model": text, "dataset": text, "n_train": plain} | dict.fromkeys(measures, number)
    made = table(frame, "Measures, with 95% intervals over images", columns)
    for cells, row in zip(made["rows"], frame.to_dict("records"), strict=True):
        for i, name in enumerate(columns):
            high = row.get(f"{name}.high")
            if known(high):
                cells[i] = (f"{cells[i][0]} ± {number(high - row[name])}", cells[i][1])
    return made


def count_notes(measured: pd.DataFrame) -> list[tuple[str, int]]:
    """What was said of measures, and of how many tasks, the most frequent first."""
    said = [note for notes in measured.get("notes", []) for note in notes.split("; ") if note]
    return list(pd.Series(said, dtype=str).value_counts().items())


def tables(
    tasks: pd.DataFrame,
    statistics: pd.DataFrame,
    measured: pd.DataFrame,
    measures: list[str],
    moved: pd.DataFrame,
    shifted: bool,
) -> dict:
    """Every table; shifted: whether the study has shifted tests to show."""
    tested = {key: text if key in WORDS else number for key in STATISTICS}
    tested |= {key: plain for key in STATISTICS if key == "n" or key.startswith("p_")}
    grid = {name: plain for name in ("rank", "reduction") if name in tasks}
    results = {k: show for k, show in RESULTS.items() if shifted or k != "shifted_change"}
    return {
        "results": [
            table(group, f"Test results of {model}", results)
            for model, group in tasks.groupby("model", sort=False)
        ],
        "chosen": table(tasks, "Chosen trials", RUN | grid | CHOSEN),
        "measured": with_intervals(measured, measures),
        "moved": table(moved, "Movement of the embeddings by tuning", RUN | MOVED),
        "tested": table(statistics, "Statistics", tested),
    }


def describe_dataset(path: Path) -> dict:
    """A dataset's description with its title and a few of its test images."""
    described = json.loads(path.read_text())
    described["title"] = title_of(described)
    test = described["splits"].get("test")
    described["samples"] = samples(path.parent / test["file"], described["classes"]) if test else []
    return described


def samples(path: Path, classes: list[str], count: int = 10) -> list[dict]:
    """Images spread evenly over the classes; only the row groups that hold one are read."""
    file = pq.ParquetFile(path)
    labels = file.read(columns=["label"])["label"].to_numpy()
    by_class = np.argsort(labels, kind="stable")
    picks = by_class[np.linspace(0, len(labels) - 1, min(count, len(labels))).astype(int)]
    found, start = {}, 0
    for group in range(file.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        inside = [row for row in picks if start <= row < end]
        if inside:
            images = file.read_row_group(group, columns=["image"])["image"]
            for row in inside:
                found[row] = data_uri(images[int(row - start)].as_py(), f"{path}: row {row}")
        start = end
    return [{"uri": found[row], "label": classes[labels[row]]} for row in picks]


def data_uri(encoded: bytes, name: str) -> str:
    """An image as it is, or a thumbnail of it where it is large; `name` is for errors."""
    image = decode(encoded, name)
    kind = image.get_format_mimetype()
    if len(encoded) > 20_000 or kind not in ("image/png", "image/jpeg"):
        image = image.convert("RGB")
        image.thumbnail((160, 160))
        small = io.BytesIO()
        image.save(small, "JPEG", quality=85)
        encoded, kind = small.getvalue(), "image/jpeg"
    return f"data:{kind};base64,{base64.b64encode(encoded).decode()}"
