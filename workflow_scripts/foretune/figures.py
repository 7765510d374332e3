"""The report's figures: Vega-Lite specifications, and what the page says about each."""

import json

import altair as alt
import pandas as pd

from foretune.measured import enough_images
from foretune.wording import known, number, percent, plain

ZERO_SHOT = "zero-shot"
# Middle tones: each has a contrast of at least 3 with the light page and with the dark one.
COLOURS = ["#3b82c4", "#c9661f", "#2f8f57", "#a65bb5", "#a3801a", "#d1495b", "#0e8f93", "#7d7f87"]
# A cell's black number turns white above this accuracy: its contrast is 4.5 at worst.
CELLS, WHITE_ABOVE = ["#eaf2fb", "#0b3d80"], 0.68
# The page's own colour, so that light, dark and print need no second drawing.
INK = "currentColor"
LINES = {"symbolType": "stroke", "symbolFillColor": "transparent", "symbolStrokeWidth": 2.5}


def first_of(measures: list[str]) -> str | None:
    return "iimm" if "iimm" in measures else next(iter(measures), None)


def figure(chart, label: str, min_width: int = 0, notes: dict | None = None) -> dict:
    """min_width: pixels below which the page scrolls the chart; above 560 it has a whole row."""
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


def trade_off(tasks: pd.DataFrame, wise_ft: pd.DataFrame) -> dict | None:
    """Gain against forgetting, means over datasets: a point a method, and WiSE-FT's curves.

    None where no method was tested on other tasks.
    """
    axes = {"x": ("ood_change", "mean"), "y": ("gain_over_zero_shot_error", "mean")}
    every = pd.concat([tasks.assign(wise_ft=1.0), wise_ft[wise_ft.wise_ft < 1]])
    every = every[every.ood_change.notna() & every.gain_over_zero_shot_error.notna()]
    if every.empty:
        return None
    means = every.groupby(["method", "wise_ft"], sort=False).agg(**axes).reset_index()
    lines = sorted(set(means.method) & set(wise_ft.method))
    # Where all coefficients begin: the zero-shot model gains and forgets nothing.
    start = pd.DataFrame({"method": lines, "wise_ft": 0.0, "x": 0.0, "y": 0.0})
    means = pd.concat([means[means.wise_ft > 0], start]).sort_values(["method", "wise_ft"])
    base = alt.Chart(records(means)).encode(
        alt.X("x:Q", title="mean change on other tasks", axis=alt.Axis(format="+.0%"),
              scale=alt.Scale(padding=40)),
        alt.Y("y:Q", title="mean gain over zero-shot error", scale=alt.Scale(padding=20)),
        color=alt.Color("method:N", title=None),
        tooltip=["method:N", alt.Tooltip("wise_ft:Q", title="coefficient of the tuned weights"),
                 alt.Tooltip("x:Q", title="change on other tasks", format="+.2%"),
                 alt.Tooltip("y:Q", title="gain", format=".3f")],
    )  # fmt: skip
    line = base.mark_line(strokeWidth=2).encode(order="wise_ft:Q")
    dots = base.mark_point(filled=True, opacity=1).encode(
        alt.Shape("method:N", legend=None),
        size=alt.condition("datum.wise_ft == 1", alt.value(130), alt.value(50)),
    )
    chart = alt.layer(line, dots).properties(height=320)
    label = "Gain against forgetting, means over datasets"
    if lines:
        label += "; a line goes from the zero-shot weights (0, 0) to the tuned ones (WiSE-FT)"
    return figure(chart, label)


def curves(trials: pd.DataFrame, chosen: pd.DataFrame) -> dict:
    """Validation accuracy per epoch, a line a trial, the chosen epoch ringed."""
    trials = trials.sort_values(["trial", "epoch"], ignore_index=True)
    shown = trials[["dataset", "trial", "epoch", "val_accuracy"]]
    ringed = set(chosen[["dataset", "trial", "best_epoch"]].itertuples(index=False, name=None))
    every = shown[["dataset", "trial", "epoch"]].itertuples(index=False, name=None)
    shown = shown.assign(best=[point in ringed for point in every])
    channels = {}
    varied = [name for name in ("rank", "reduction") if trials[name].nunique() > 1]
    dashed = (varied or ["weight_decay"])[0]
    for channel, column in [("color", "learning_rate_peak"), ("strokeDash", dashed)]:
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
                 "learning_rate_peak:N", f"{dashed}:N"],
    )  # fmt: skip
    lines = base.mark_line(point={"size": 25}).encode(
        alt.Color.from_dict(channels["color"]), alt.StrokeDash.from_dict(channels["strokeDash"])
    )
    ring = base.transform_filter("datum.best").mark_point(size=170, color=INK)
    first = alt.param(name="dataset", value=next(iter(shown.dataset), ""))
    chart = alt.layer(lines, ring).add_params(first).properties(height=240)
    return figure(chart, "Validation accuracy per epoch, one line a trial")
