"""Build the HTML report of a study: one file with its figures, tables, images and scripts.

The report is made from the tables of the analysis and from the datasets' test images. The folder
`page` holds the page's template, style and scripts. Each table is stored in the page once, as
compressed JSON, and the scripts draw all figures and tables from it in the browser.
"""

import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from foretune.analysis.missing import describe_missing
from foretune.analysis.outcomes import GAIN
from foretune.analysis.seeds import average_seeds, keep_first_seed
from foretune.analysis.tables import REPORT_TABLE_NAMES
from foretune.core.caption_templates import format_caption
from foretune.core.files import atomic_write, read_json
from foretune.core.parquet import read_frame, read_metadata
from foretune.report.charts import CHARTS, PALETTE, make_specifications
from foretune.report.forecast_answer import answer_how_well
from foretune.report.forecast_cards import make_forecast_cards
from foretune.report.forecast_charts import outlook_chart
from foretune.report.page_data import (
    SPLIT_TABLES,
    ZERO_SHOT,
    compress_json,
    describe_enough_images,
    format_json,
    pack_figure_data,
    pack_tables,
)
from foretune.report.page_tables import make_study_tables
from foretune.report.summary import (
    describe_fronts,
    make_overview_answers,
    summarize_findings,
)
from foretune.report.thumbnails import DatasetDescription, describe_dataset
from foretune.report.trade_off_chart import trade_off_chart

PAGE_FOLDER = Path(__file__).with_name("page")
PAGE_SCRIPTS = ("data.js", "tables.js", "charts.js", "page.js")
FEW_DATASETS = 6  # the report warns about correlations over fewer datasets than this
# The outcomes that a reader can choose, with the label that figures give them.
REPORT_OUTCOMES = {
    GAIN: "gain over zero-shot error",
    "ood_change": "change on other tasks",
    "accuracy": "accuracy",
    "shifted_change": "change on shifted tests",
}


def build_report(
    analysis: Path,
    epochs: list[Path],
    datasets: list[Path],
    provenance: Path,
    output: Path,
    title: str,
    forecast: Path | None = None,
) -> None:
    """Write the report of a study as one self-contained HTML file.

    Args:
        analysis: Folder with the tables of the analysis.
        epochs: Parquet files with the epochs of all trials.
        datasets: Manifests of the datasets and of their shifted tests.
        provenance: JSON file that `write_provenance` wrote.
        output: HTML file to write.
        title: Title of the page.
        forecast: Folder with the tables of the forecasts; None if the study has no forecasts.

    Raises:
        ForetuneError: A test image cannot be decoded.
    """
    study = {name: read_frame(Path(analysis) / f"{name}.parquet")
             for name in REPORT_TABLE_NAMES}  # fmt: skip
    study["outcomes"] = average_seeds(study["outcomes"])
    study["confusions"] = keep_first_seed(study["confusions"])
    study["drift"] = average_seeds(study["drift"])
    metadata = read_metadata(Path(analysis) / "tasks.parquet")
    measures = metadata["measures"]
    facts = read_json(provenance)
    config = json.loads(json.dumps(facts.get("config", {})))  # plain dicts, which PyYAML writes
    descriptions = describe_study_datasets(datasets, facts)
    settings = make_settings(study, measures, descriptions)
    cards, forecast_tables = make_forecast_cards(forecast)
    tables = make_study_tables(study, measures) | forecast_tables
    packed = pack_tables(tables) | pack_figure_data(study, measures, epochs, settings["models"])
    page_tables = {name: table | {"rows": len(frame)} for name, (table, frame) in tables.items()}
    write_page(
        output, "report.html.j2", PAGE_SCRIPTS, packed,
        specs=make_specifications(
            CHARTS | {"trade_off": trade_off_chart, "expected": outlook_chart}
        ),
        title=title, facts=facts, datasets=descriptions, cards=cards, tables=page_tables,
        settings=settings, trained=bool(epochs), **summarize_study(study, settings),
        forecast_study=facts.get("config", {}).get("forecast", {}).get("study"),
        elsewhere=facts.get("config", {}).get("outcomes"),
        missing=describe_missing(metadata.get("missing", [])),
        unmeasured=facts.get("config", {}).get("without_images", []),
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
    )  # fmt: skip


def write_page(
    output: Path, template: str, scripts: Sequence[str], packed: dict[str, dict], **variables
) -> None:
    """Write a page as one self-contained HTML file.

    Args:
        output: HTML file to write.
        template: name of the template in the folder `page`.
        scripts: names of the scripts in the folder `page`, in their order.
        packed: data of the tables and figures by name, from `pack_columns`.
        variables: of the template. `specs`, `tables` and `settings` are also for the scripts.
    """
    shared = {name: variables[name] for name in ("specs", "tables", "settings")}
    page = make_environment().get_template(template).render(
        **variables,
        style=(PAGE_FOLDER / "style.css").read_text(),
        scripts="\n".join((PAGE_FOLDER / name).read_text() for name in scripts),
        vega=get_vega_bundle(),
        embedded=shared,
        packed=packed,
    )  # fmt: skip
    with atomic_write(output) as partial_file:
        partial_file.write_text(page, encoding="utf-8")


def make_settings(
    study: dict[str, pd.DataFrame], measures: list[str], datasets: Sequence[DatasetDescription]
) -> dict[str, Any]:
    """Return what the page's template and scripts need besides tables: choices, labels, orders."""
    tasks, statistics = study["tasks"], study["statistics"]
    has_shifted_tests = bool(tasks.shifted_change.notna().any())
    outcomes = REPORT_OUTCOMES.copy()
    if not has_shifted_tests:
        del outcomes["shifted_change"]
    models = sorted(set(tasks.model))
    methods = sorted(set(tasks.method), key=lambda method: (method != "full", method))
    names = [dataset["name"] for dataset in datasets]
    return {
        "order": list(dict.fromkeys(names + sorted(set(tasks.dataset)))),
        "outcomes": outcomes, "measures": measures, "colours": PALETTE, "models": models,
        "split": SPLIT_TABLES,
        "methods": methods, "runs": [
            [model, method] for model in models for method in methods
            if ((tasks.model == model) & (tasks.method == method)).any()
        ],
        "titles": [dataset["title"] for dataset in datasets], "zero_shot": ZERO_SHOT,
        "fronts": describe_fronts(study["front"]),
        "enough": describe_enough_images(study["curves"], measures),
        # Half width of a 95% band in standard errors, by the number of points of a line.
        "t": {int(n): stats.t.ppf(0.975, n - 2) for n in set(statistics.n) if n > 2},
    }  # fmt: skip


def summarize_study(study: dict[str, pd.DataFrame], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the template's variables that summarise the study: answers, findings and counts."""
    tasks, measures = study["tasks"], settings["measures"]
    return {
        "answers": [
            *filter(None, [answer_how_well(tasks)]),
            *make_overview_answers(tasks, study["statistics"]),
        ],
        "findings": summarize_findings(study["findings_evidence"]),
        "counts": describe_counts(tasks, settings["order"]),
        "few": check_few_datasets(study["statistics"]),
        "shifted": "shifted_change" in settings["outcomes"],
        "trades": bool(len(study["front"])),
        "notes": count_notes(study["measures"]),
        "converging": [m for m in measures if m in set(study["curves"].measure.unique())],
        "initial": {"measure": "iimm" if "iimm" in measures else next(iter(measures), None)},
    }


def check_few_datasets(statistics: pd.DataFrame) -> tuple[int, float] | None:
    """Return the smallest number of datasets of a correlation and its best possible p-value.

    Return None if every correlation has at least FEW_DATASETS datasets. Correlations with the
    change on shifted tests do not count: few datasets may have shifted tests, and the notes of
    these correlations already tell how many.
    """
    counts = statistics.n[(statistics.n > 0) & (statistics.outcome != "shifted_change")]
    if not (counts < FEW_DATASETS).any():
        return None
    # With n datasets, the smallest two-sided permutation p-value of a rank correlation is 2 / n!.
    return counts.min(), min(1.0, 2 / math.factorial(int(counts.min())))


def make_environment() -> jinja2.Environment:
    """Return the Jinja environment of the page; it escapes all values that it inserts."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=format_percent,
        points=format_points,
        number=format_number,
        plain=format_plain,
        text=format_text,
        as_json=format_json,
        compressed=compress_json,
    )
    environment.tests["known"] = is_known
    return environment


@functools.cache
def get_vega_bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, in the version that Altair targets."""
    version = alt.SCHEMA_VERSION.lstrip("v").rsplit(".", 1)[0]
    # The stubs lack the default of the first argument.
    bundle = vl_convert.javascript_bundle(vl_version=version)  # type: ignore[call-arg]
    return bundle.replace("</script", r"<\/script")


def describe_study_datasets(paths: list[Path], facts: dict) -> list[DatasetDescription]:
    """Describe datasets and shifted tests, each by its manifest and by its entry in the config.

    The caption, licence and source that the config states replace those of the manifest.
    """
    descriptions = [describe_dataset(Path(path)) for path in paths]
    for dataset in descriptions:
        entry = facts.get("config", {}).get("datasets", {}).get(dataset["name"], {})
        # A shifted test has its own licence and source but uses the captions of its dataset.
        test_entry = entry.get("shifted", {}).get(dataset["split"], entry)
        dataset["caption"] = format_caption(entry.get("caption", dataset["caption"]))
        dataset["licence"] = test_entry.get("licence", dataset["licence"])
        dataset["source"] = test_entry.get("source", dataset["source"])
    return descriptions


def describe_counts(tasks: pd.DataFrame, datasets: list[str]) -> list[str]:
    """Return the numbers of models, methods and datasets in words, such as "2 models"."""
    numbers = {"model": tasks.model.nunique(), "method": tasks.method.nunique(),
               "dataset": len(datasets)}  # fmt: skip
    return [f"{n} {noun}{'s' * (n != 1)}" for noun, n in numbers.items()]


def count_notes(measures: pd.DataFrame) -> list[tuple[str, int]]:
    """Return every note on the measures with its number of tasks, the most frequent first.

    measures: table with one row per model and dataset; `notes` holds notes separated by "; ".
    """
    notes = [note for cell in measures.get("notes", []) for note in cell.split("; ") if note]
    return list(pd.Series(notes, dtype=str).value_counts().items())
