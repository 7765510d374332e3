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
from foretune.files import whole_file
from foretune.measured import enough_images
from foretune.tables import read_metadata

ZERO_SHOT = "zero-shot"
FEW = 6  # below so many datasets, a correlation says next to nothing
OUTCOMES = {
    "gain_over_zero_shot_error": "gain over zero-shot error",
    "ood_change": "change on other tasks",
    "accuracy": "accuracy",
    "shifted_change": "change on shifted tests",
}
STATISTICS = ["model", "method", "measure", "outcome", "n", "spearman", "p_asymptotic",
              "p_permutation", "slope", "intercept", "r2", "p_slope", "note"]  # fmt: skip
# Middle tones: each has a contrast of at least 3 with the light page and with the dark one.
COLOURS = ["#3b82c4", "#c9661f", "#2f8f57", "#a65bb5", "#a3801a", "#d1495b", "#0e8f93", "#7d7f87"]
# A cell's black number turns white above this accuracy: its contrast is 4.5 at worst.
CELLS, WHITE_ABOVE = ["#eaf2fb", "#0b3d80"], 0.68
# The page's own colour, so that light, dark and print need no second drawing.
INK = "currentColor"
LINES = {"symbolType": "stroke", "symbolFillColor": "transparent", "symbolStrokeWidth": 2.5}


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
    measures = read_metadata(analysis / "tasks.parquet")["measures"]
    rows = json.loads((analysis / "statistics.json").read_text())
    statistics = pd.DataFrame(rows, columns=STATISTICS)
    measured = pd.read_parquet(analysis / "measures.parquet")
    how_many = pd.read_parquet(analysis / "curves.parquet")
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
            drawn["curves"] = curves(of(trials, model, [method]))
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
        tables=tables(tasks, statistics, measured, measures, shifted), facts=facts, colours=COLOURS,
        shifted=shifted, converging=converging, notes=count_notes(measured),
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


def first_of(measures: list[str]) -> str | None:
    return "iimm" if "iimm" in measures else next(iter(measures), None)


# What a reader sees of a value; unknown ones are a dash.


def known(value) -> bool:
    return not pd.isna(value)


def percent(value) -> str:
    return f"{100 * value:.1f}%" if known(value) else "–"


def points(value) -> str:
    return f"{100 * value:+.1f}".replace("-", "−") if known(value) else "–"


def number(value) -> str:
    return f"{value:#.3g}".rstrip(".").replace("-", "−") if known(value) else "–"


def plain(value) -> str:
    """A number that was chosen or counted, without digits that it does not have."""
    return f"{value:.3g}".replace("-", "−") if known(value) else "–"


def text(value) -> str:
    return str(value) if known(value) and value != "" else "–"


# Figures: a chart's specification and what the page says about it.


def figure(chart, label: str, min_width: int = 0, notes: dict | None = None) -> dict:
    spec = chart.properties(width="container").to_dict()
    del spec["$schema"]  # an address: nothing in this page refers to the network
    return {"spec": spec, "label": label, "min_width": min_width, "notes": notes or {}}


def records(frame: pd.DataFrame) -> alt.InlineData:
    rows = [{k: v if known(v) else None for k, v in r.items()} for r in frame.to_dict("records")]
    return alt.InlineData(values=rows)


def heat_map(tested: pd.DataFrame, order: list[str]) -> dict:
    """Accuracy, trained on x evaluated on, the zero-shot row first."""
    # A shifted test of a dataset is a column of its own.
    shifted = [f" · {split}" if split != "test" else "" for split in tested.split]
    tested = tested.assign(
        trained_on=tested.trained_on.astype(object).fillna(ZERO_SHOT),
        evaluated_on=tested.evaluated_on + shifted,
    )
    seen = set(tested.evaluated_on)
    columns = [name for name in order if name in seen] + sorted(seen - set(order))
    rows = [name for name in [ZERO_SHOT, *order] if name in set(tested.trained_on)]
    grid = pd.MultiIndex.from_product([rows, columns], names=["trained_on", "evaluated_on"])
    cells = tested.drop_duplicates(grid.names).set_index(grid.names)
    cells = cells[["accuracy", "zero_shot_accuracy", "chance", "n"]].reindex(grid).reset_index()
    cells["shown"] = [percent(accuracy).rstrip("%") for accuracy in cells.accuracy]
    cells["own"] = cells.trained_on == cells.evaluated_on
    cells = cells.sort_values("own", kind="stable")  # frames are drawn last, over their neighbours

    axis = {"labelLimit": 120, "domain": False, "ticks": False, "grid": False}
    top = alt.Axis(orient="top", labelAngle=-35, labelOverlap=False, **axis)
    base = alt.Chart(records(cells)).encode(
        alt.X("evaluated_on:N", sort=columns, title="evaluated on", axis=top),
        alt.Y("trained_on:N", sort=rows, title="trained on", axis=alt.Axis(**axis)),
        tooltip=[
            alt.Tooltip("trained_on:N", title="trained on"),
            alt.Tooltip("evaluated_on:N", title="evaluated on"),
            alt.Tooltip("accuracy:Q", format=".2%"),
            alt.Tooltip("zero_shot_accuracy:Q", title="zero-shot", format=".2%"),
            alt.Tooltip("chance:Q", format=".2%"),
            alt.Tooltip("n:Q", title="test images"),
        ],
    )
    colour = alt.Scale(domain=[0, 1], range=CELLS, interpolate="rgb")
    boxes = base.transform_filter("isValid(datum.accuracy)").mark_rect(strokeWidth=2)
    boxes = boxes.encode(
        color=alt.Color("accuracy:Q", scale=colour, legend=None),
        stroke=alt.condition("datum.own", alt.value(INK), alt.value(None)),
    )
    ink = f"isValid(datum.accuracy) ? datum.accuracy > {WHITE_ABOVE} ? '#fff' : '#000' : '{INK}'"
    numbers = base.mark_text(fontSize=12, color=alt.expr(ink)).encode(text="shown:N")
    chart = alt.layer(boxes, numbers).properties(height=max(34 * len(rows), 200))
    label = "Accuracy in %, trained on × evaluated on"
    return figure(chart, label, min_width=130 + 40 * len(columns))


def scatter(group: pd.DataFrame, fits: list[dict], measures: list[str], outcomes: dict) -> dict:
    """Measure against outcome with its fitted line; the page's lists choose which."""
    rows, lines, notes = [], [], {}
    fitted = {(fit["measure"], fit["outcome"]): fit for fit in fits}
    for measure, outcome in [(m, o) for m in measures for o in outcomes]:
        chosen = {"measure": measure, "outcome": outcome}
        pairs = group[["dataset", measure, outcome]].set_axis(["dataset", "x", "y"], axis=1)
        pairs = pairs.astype({"x": float, "y": float}).dropna()
        rows += [row | chosen for row in pairs.to_dict("records")]
        fit = fitted.get((measure, outcome))
        notes[f"{measure} {outcome}"] = fit_sentence(fit) if len(pairs) else "Nothing to show."
        if len(pairs) and fit and known(fit["slope"]) and known(fit["intercept"]):
            x, x2 = pairs.x.min(), pairs.x.max()
            y, y2 = (fit["intercept"] + fit["slope"] * end for end in (x, x2))
            lines.append({"x": x, "x2": x2, "y": y, "y2": y2} | chosen)

    def part(values: list[dict]):
        chart = alt.Chart(alt.InlineData(values=values))
        return chart.transform_filter(
            "datum.measure == measure && datum.outcome == outcome"
        ).encode(
            alt.X("x:Q", title=None, scale=alt.Scale(zero=False, padding=36)),
            alt.Y("y:Q", title=None, scale=alt.Scale(zero=False, padding=18)),
        )

    line = part(lines).mark_rule(color=COLOURS[1], strokeWidth=2, strokeDash=[6, 4])
    dots = part(rows).mark_circle(size=90, color=COLOURS[0], opacity=1)
    names = part(rows).mark_text(dy=-11, color=INK, limit=110).encode(text="dataset:N")
    tooltip = ["dataset:N", alt.Tooltip("x:Q", format=".4f"), alt.Tooltip("y:Q", format=".4f")]
    chart = alt.layer(line.encode(x2="x2:Q", y2="y2:Q"), dots.encode(tooltip=tooltip), names)
    chart = chart.add_params(
        alt.param(name="measure", value=first_of(measures)),
        alt.param(name="outcome", value=next(iter(outcomes))),
    )
    # An axis title cannot follow a parameter, the chart's title can.
    said = alt.expr(f"{json.dumps(outcomes)}[outcome] + ' against ' + measure")
    chart = chart.properties(height=280, title=alt.TitleParams(said))
    return figure(chart, "Measure against outcome, one point a dataset", notes=notes)


def convergence(curves: pd.DataFrame, measures: list[str]) -> dict:
    """Deviation against number of images, a line a dataset; the page's list chooses the measure."""
    shown = curves[["dataset", "measure", "n", "relative"]].dropna()
    notes = {}
    for measure in measures:
        enough = enough_images(shown[shown.measure == measure])
        notes[measure] = (
            f"From {enough} images on, {measure} deviates by at most 10% on every dataset."
            if enough
            else f"On some dataset, {measure} deviates by more than 10% with half of the images."
            if (shown.measure == measure).any()
            else "Nothing to show."
        )
    base = alt.Chart(records(shown)).transform_filter("datum.measure == measure")
    lines = base.mark_line(point={"size": 25}).encode(
        alt.X("n:Q", scale=alt.Scale(type="log", nice=False, padding=8), title="images",
              axis=alt.Axis(grid=False, tickCount=5)),
        alt.Y("relative:Q", title=None, axis=alt.Axis(format=".0%", tickCount=5)),
        alt.Color("dataset:N", legend=LINES),
        tooltip=["dataset:N", "n:Q", alt.Tooltip("relative:Q", format=".1%")],
    )  # fmt: skip
    first = alt.param(name="measure", value=first_of(measures))
    chart = lines.add_params(first).properties(height=240)
    label = "Deviation of a subset’s measure, as a share of its spread between datasets"
    return figure(chart, label, notes=notes)


def fit_sentence(fit: dict | None) -> str:
    """What statistics.json says about one correlation and fit."""
    if fit is None:
        return "No statistics for this pair."
    said = f"Spearman’s ρ = {number(fit['spearman'])}"
    if known(fit["p_permutation"]):
        said += f" (permutation p = {plain(fit['p_permutation'])})"
    note = f" Note: {fit['note']}." if fit["note"] else ""
    return f"{said}, R² = {number(fit['r2'])}, n = {plain(fit['n'])}.{note}"


def curves(trials: pd.DataFrame) -> dict:
    """Validation accuracy per epoch, a line a trial, the best epoch ringed."""
    # Of equals the earlier trial, then the earlier epoch, as the choice of trials has it.
    trials = trials.sort_values(["trial", "epoch"], ignore_index=True)
    best = trials.groupby("dataset").val_accuracy.idxmax()
    shown = trials[["dataset", "trial", "epoch", "val_accuracy"]]
    shown = shown.assign(best=trials.index.isin(best))
    channels = {}
    for channel, column in [("color", "learning_rate_peak"), ("strokeDash", "weight_decay")]:
        values = sorted(trials[column].dropna().unique())
        shown[column] = [plain(value) for value in trials[column]]
        channels[channel] = {
            "field": column,
            "type": "nominal",
            "sort": [plain(value) for value in values],
            "title": column.removesuffix("_peak").replace("_", " "),
            "legend": LINES if len(values) > 1 else None,
        }
    whole = alt.Axis(tickMinStep=1, format="d", grid=False)
    percents = alt.Axis(format=".0%", tickCount=5)
    base = alt.Chart(records(shown)).transform_filter("datum.dataset == dataset")
    base = base.encode(
        alt.X("epoch:Q", scale=alt.Scale(zero=False, nice=False, padding=8), axis=whole),
        alt.Y("val_accuracy:Q", title=None, scale=alt.Scale(zero=False), axis=percents),
        detail="trial:N",
        tooltip=["trial:N", "epoch:Q", alt.Tooltip("val_accuracy:Q", format=".2%"),
                 "learning_rate_peak:N", "weight_decay:N"],
    )  # fmt: skip
    lines = base.mark_line(point={"size": 25}).encode(
        alt.Color.from_dict(channels["color"]), alt.StrokeDash.from_dict(channels["strokeDash"])
    )
    ring = base.transform_filter("datum.best").mark_point(size=170, color=INK)
    first = alt.param(name="dataset", value=next(iter(shown.dataset), ""))
    chart = alt.layer(lines, ring).add_params(first).properties(height=240)
    return figure(chart, "Validation accuracy per epoch, one line a trial")


# Tables: a cell is what is shown and what is raw; the page sorts by the raw, CSV holds it.

RUN = {"model": text, "method": text, "dataset": text}
RESULTS = {
    "dataset": text, "method": text, "zero_shot_accuracy": percent, "accuracy": percent,
    "gain_over_zero_shot_error": number, "ood_change": points, "shifted_change": points,
    "chance": percent,
}  # fmt: skip
CHOSEN = {"learning_rate": plain, "weight_decay": plain, "best_epoch": plain,
          "val_accuracy": percent}  # fmt: skip
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
    shifted: bool,
) -> dict:
    """Every table; shifted: whether the study has shifted tests to show."""
    tested = {key: text if key in WORDS else number for key in STATISTICS}
    tested |= {key: plain for key in STATISTICS if key == "n" or key.startswith("p_")}
    results = {k: show for k, show in RESULTS.items() if shifted or k != "shifted_change"}
    return {
        "results": [
            table(group, f"Test results of {model}", results)
            for model, group in tasks.groupby("model", sort=False)
        ],
        "chosen": table(tasks, "Chosen trials", RUN | CHOSEN),
        "measured": with_intervals(measured, measures),
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
