"""The report: one HTML file with its figures, tables, images and scripts inside.

It is made from a study's tables and its datasets' test images. The page's template, style and
scripts lie in the folder `page`; the page draws figures and tables itself, from data that stands
in it once.
"""

import functools
import json
import math
from pathlib import Path

import altair as alt
import jinja2
import pandas as pd
import vl_convert
import yaml
from scipy import stats

from foretune.analysis.formatting import (
    format_number,
    format_percent,
    format_plain,
    format_points,
    format_text,
    is_known,
)
from foretune.analysis.outcomes import GAIN
from foretune.core.files import atomic_write
from foretune.core.parquet import read_metadata
from foretune.report.charts import PALETTE, make_specifications
from foretune.report.forecast_cards import make_forecast_cards
from foretune.report.page_data import (
    ZERO_SHOT,
    describe_enough_images,
    figure_data,
    format_json,
    table_data,
)
from foretune.report.page_tables import make_study_tables
from foretune.report.summary import finding_answers, overview_answers
from foretune.report.thumbnails import describe_dataset_samples

PAGE_FOLDER = Path(__file__).with_name("page")
PAGE_SCRIPTS = ("data.js", "tables.js", "charts.js", "page.js")
FEW_DATASETS = 6  # below so many datasets, a correlation says next to nothing
REPORT_OUTCOMES = {
    GAIN: "gain over zero-shot error",
    "ood_change": "change on other tasks",
    "accuracy": "accuracy",
    "shifted_change": "change on shifted tests",
}
REPORT_TABLES = ("outcomes", "tasks", "statistics", "measures", "curves", "drift", "wise_ft",
          "differences", "pooled", "paper_tables", "findings_evidence", "confusions")  # fmt: skip


def build_report(
    analysis: Path,
    epochs: list[Path],
    datasets: list[Path],
    provenance: Path,
    output: Path,
    title: str,
    forecast: Path | None = None,
) -> None:
    """Write the report of a study into the one file `output`.

    analysis: the folder of a study's tables; epochs: its trials' files; datasets: manifests;
    forecast: the folder of forecasts, where the study has some.
    """
    study = {name: pd.read_parquet(Path(analysis) / f"{name}.parquet") for name in REPORT_TABLES}
    measures = read_metadata(Path(analysis) / "tasks.parquet")["measures"]
    facts = json.loads(Path(provenance).read_text())
    described = describe_study_datasets(datasets, facts)
    tasks, statistics = study["tasks"], study["statistics"]
    shifted = bool(tasks.shifted_change.notna().any())
    outcomes = {k: v for k, v in REPORT_OUTCOMES.items() if shifted or k != "shifted_change"}
    models = sorted(set(tasks.model))
    methods = sorted(set(tasks.method), key=lambda method: (method != "full", method))
    order = list(dict.fromkeys([d["name"] for d in described] + sorted(set(tasks.dataset))))
    cards, forecast_tables = make_forecast_cards(forecast)
    tables = make_study_tables(study, measures) | forecast_tables
    packed = table_data(tables) | figure_data(study, measures, epochs)
    tables = {name: shown | {"rows": len(frame)} for name, (shown, frame) in tables.items()}
    # Shifted tests may be fewer than datasets: their notes say so, and this is about the study.
    few = statistics.n[(statistics.n > 0) & (statistics.outcome != "shifted_change")]
    few = few[few < FEW_DATASETS]
    setting = {
        "order": order, "outcomes": outcomes, "measures": measures, "colours": PALETTE,
        "models": models, "methods": methods, "runs": [
            [model, method] for model in models for method in methods
            if ((tasks.model == model) & (tasks.method == method)).any()
        ],
        "titles": [data["title"] for data in described], "zero_shot": ZERO_SHOT,
        "enough": describe_enough_images(study["curves"], measures),
        # For the bands of lines: how many standard errors are 95%, by the number of points.
        "t": {int(n): stats.t.ppf(0.975, n - 2) for n in set(statistics.n) if n > 2},
    }  # fmt: skip
    # With n datasets, the best permutation p-value of a rank correlation is 2 / n!.
    warning = None if few.empty else (few.min(), min(1.0, 2 / math.factorial(int(few.min()))))
    page = make_environment().get_template("report.html.j2").render(
        title=title, facts=facts, datasets=described, tables=tables, cards=cards,
        answers=overview_answers(tasks, statistics), findings=finding_answers(
            study["findings_evidence"]), counts=describe_counts(tasks, order),
        setting=setting, shifted=shifted, few=warning, notes=count_notes(study["measures"]),
        measures=measures, outcomes=outcomes, order=order,
        first={"measure": "iimm" if "iimm" in measures else next(iter(measures), None)},
        trades=bool(tasks.ood_change.notna().any()), trained=packed["trials"]["n"],
        converging=[m for m in measures if m in set(study["curves"].measure)],
        forecast_study=facts.get("config", {}).get("forecast", {}).get("study"),
        style=(PAGE_FOLDER / "style.css").read_text(),
        scripts="\n".join((PAGE_FOLDER / name).read_text() for name in PAGE_SCRIPTS),
        embedded={
            "specs": make_specifications(), "tables": tables, "setting": setting,
        } | {f"data-{name}": value for name, value in packed.items()},
        config=yaml.safe_dump(facts.get("config", {}), sort_keys=False, allow_unicode=True),
        vega=vega_bundle(),
    )  # fmt: skip
    with atomic_write(output) as beside:
        beside.write_text(page, encoding="utf-8")


def make_environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        percent=format_percent,
        points=format_points,
        number=format_number,
        plain=format_plain,
        text=format_text,
        as_json=format_json,
    )
    made.tests["known"] = is_known
    return made


@functools.cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, of the version that Altair writes for."""
    version = alt.SCHEMA_VERSION.lstrip("v").rsplit(".", 1)[0]
    return vl_convert.javascript_bundle(vl_version=version).replace("</script", r"<\/script")


def describe_study_datasets(paths: list[Path], facts: dict) -> list[dict]:
    """Datasets and shifted tests; what the config says of one stands before its own words."""
    found = [describe_dataset_samples(Path(path)) for path in paths]
    for dataset in found:
        said = facts.get("config", {}).get("datasets", {}).get(dataset["name"], {})
        # A shifted test has its own entry there, but its dataset's captions.
        own = said.get("shifted", {}).get(dataset["split"], said)
        said = [("caption", said), ("licence", own), ("source", own)]
        dataset |= {key: entry[key] for key, entry in said if key in entry}
    return found


def describe_counts(tasks: pd.DataFrame, order: list[str]) -> list[str]:
    """How many models, methods and datasets there are, in words."""
    numbers = {"model": tasks.model.nunique(), "method": tasks.method.nunique(),
               "dataset": len(order)}  # fmt: skip
    return [f"{n} {noun}{'s' * (n != 1)}" for noun, n in numbers.items()]


def count_notes(measured: pd.DataFrame) -> list[tuple[str, int]]:
    """What was said of measures, and of how many tasks, the most frequent first."""
    said = [note for notes in measured.get("notes", []) for note in notes.split("; ") if note]
    return list(pd.Series(said, dtype=str).value_counts().items())
