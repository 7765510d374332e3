"""Specify the report's interactive figures: one Vega-Lite specification per kind, without data.

The page's scripts insert the data that the reader selects: each specification reads named data
sets, and a string that begins with "$" is a placeholder (for an axis title or an order of names).
A figure without a height gets one from its number of rows.
"""

import functools
from collections.abc import Callable
from typing import Any

import altair as alt

# Mid-tones, each with a contrast of at least 3 to the light page and to the dark page.
PALETTE = ["#3b82c4", "#c9661f", "#2f8f57", "#a65bb5", "#a3801a", "#d1495b", "#0e8f93", "#7d7f87"]
# Numbers in cells are white above this value and black below, for a contrast of at least 4.5.
CELL_COLOURS, WHITE_ABOVE = ["#eaf2fb", "#0b3d80"], 0.68
# The page's text colour: figures need not be redrawn for the light, dark or print style.
INK = "currentColor"
VOTE_COLOURS = {"for": PALETTE[2], "against": PALETTE[5], "open": PALETTE[7]}


AnyChart = alt.Chart | alt.LayerChart | alt.FacetChart


def placeholder(name: str) -> Any:
    """Return "$name", which the page's scripts replace by a value of any type."""
    return f"${name}"


def named_data(name: str, *filters: str) -> alt.Chart:
    """Return a chart of the named data set, restricted to rows that pass all filters."""
    chart = alt.Chart(alt.NamedData(name))
    for expression in filters:
        chart = chart.transform_filter(expression)
    return chart


def interval_tooltips() -> list[alt.Tooltip]:
    """Return the tooltips for the two ends of a 95% interval."""
    return [
        alt.Tooltip("low:Q", title="95% interval from", format=".3f"),
        alt.Tooltip("high:Q", title="to", format=".3f"),
    ]


def zero_line() -> alt.Chart:
    """Return a vertical line at 0."""
    return alt.Chart(alt.InlineData([{"x": 0}])).mark_rule(color=INK, opacity=0.5).encode(x="x:Q")


def plain_axis(**options) -> alt.Axis:
    """Return an axis with labels only: no line, ticks or grid."""
    return alt.Axis(domain=False, ticks=False, grid=False, **options)


def matrix_cells(x_title: str, y_title: str, ink: str, tooltip: list[alt.Tooltip]) -> AnyChart:
    """Return a matrix of coloured cells with their numbers, from the data set `cells`.

    Each row of the data has `x`, `y`, `value` (0 to 1), `shown` (the number as text) and `own`
    (whether the cell is framed). ink: a Vega expression for the colour of the numbers.
    """
    scale = alt.Scale(domain=[0, 1], range=CELL_COLOURS, interpolate="rgb")
    axes = {"labelLimit": 130, "labelOverlap": False}
    top = plain_axis(orient="top", labelAngle=-35, **axes)
    base = named_data("cells").encode(
        alt.X("x:N", sort=placeholder("columns"), title=x_title, axis=top),
        alt.Y("y:N", sort=placeholder("rows"), title=y_title, axis=plain_axis(**axes)),
        tooltip=tooltip,
    )
    boxes = base.transform_filter("isValid(datum.value)").mark_rect(strokeWidth=2, cornerRadius=1)
    boxes = boxes.encode(
        alt.Color("value:Q", scale=scale, legend=None),
        stroke=alt.condition("datum.own", alt.value(INK), alt.value(None)),
        order="own:Q",  # framed cells are drawn last, over their neighbours
    )  # fmt: skip
    numbers = base.mark_text(fontSize=12, color=alt.expr(ink)).encode(text="shown:N")
    return alt.layer(boxes, numbers)


def matrix_chart() -> AnyChart:
    """Return accuracy, trained on x evaluated on; the first row is the zero-shot model."""
    ink = f"isValid(datum.value) ? datum.value > {WHITE_ABOVE} ? '#fff' : '#000' : '{INK}'"
    tooltip = [
        alt.Tooltip("y:N", title="trained on"),
        alt.Tooltip("x:N", title="evaluated on"),
        alt.Tooltip("value:Q", title="accuracy", format=".2%"),
        alt.Tooltip("zero_shot:Q", title="zero-shot accuracy", format=".2%"),
        alt.Tooltip("change:Q", title="change", format="+.2%"),
        alt.Tooltip("chance:Q", title="chance level", format=".2%"),
        alt.Tooltip("n:Q", title="test images"),
    ]
    return matrix_cells("evaluated on", "trained on", ink, tooltip)


def confusion_chart() -> AnyChart:
    """Return the share of a class's images that got each predicted class."""
    ink = f"datum.value > {WHITE_ABOVE} ? '#fff' : '#000'"
    tooltip = [
        alt.Tooltip("y:N", title="class"),
        alt.Tooltip("x:N", title="predicted class"),
        alt.Tooltip("n:Q", title="images"),
        alt.Tooltip("of:Q", title="images of the class"),
        alt.Tooltip("value:Q", title="share", format=".1%"),
    ]
    return matrix_cells("predicted class", "class", ink, tooltip)


def scatter_chart() -> AnyChart:
    """Return a measure against an outcome, with the fitted line and the 95% band of its mean."""
    x = alt.X("x:Q", title=placeholder("measure"), scale=alt.Scale(zero=False, padding=28),
              axis=alt.Axis(tickCount=6, grid=False))  # fmt: skip
    y = alt.Y("y:Q", title=placeholder("outcome"), scale=alt.Scale(zero=False, padding=18),
              axis=alt.Axis(tickCount=6))  # fmt: skip
    fit = named_data("fit")
    band = fit.mark_area(color=PALETTE[1], opacity=0.16).encode(
        x, alt.Y("low:Q", title=placeholder("outcome")), alt.Y2("high:Q")
    )
    line = fit.mark_line(color=PALETTE[1], strokeWidth=2).encode(x, y)
    points = named_data("points")
    dots = points.mark_point(filled=True, size=80, color=PALETTE[0], opacity=1).encode(
        x, y, tooltip=["dataset:N", alt.Tooltip("x:Q", title=placeholder("measure"), format=".4f"),
                       alt.Tooltip("y:Q", title=placeholder("outcome"), format=".4f")],
    )  # fmt: skip
    names = named_data("points", "datum.named").mark_text(dy=-11, color=INK, limit=110, fontSize=11)
    return alt.layer(band, line, dots, names.encode(x, y, text="dataset:N")).properties(height=340)


def ranking_chart() -> AnyChart:
    """Return Spearman's rho of every measure with an outcome, with bootstrap intervals.

    A dot is filled if the correlation is shown to be significant, and a ring otherwise.
    """
    y = alt.Y("measure:N", sort=placeholder("rows"), title=None, axis=plain_axis(labelLimit=170))
    x = alt.X("rho:Q", title=placeholder("rho"), scale=alt.Scale(domain=[-1, 1]),
              axis=alt.Axis(values=[-1, -0.5, 0, 0.5, 1], titleAnchor="end"))  # fmt: skip
    tooltip: list[str | alt.Tooltip] = [
        "measure:N", alt.Tooltip("rho:Q", title="Spearman’s ρ", format=".3f"),
        *interval_tooltips(), alt.Tooltip("p:Q", title="permutation p", format=".3g"),
        alt.Tooltip("p_holm:Q", title="p after Holm’s correction", format=".3g"),
    ]  # fmt: skip
    colour = alt.condition("datum.chosen", alt.value(PALETTE[1]), alt.value(PALETTE[0]))
    base = named_data("measures").encode(y, tooltip=tooltip, color=colour)
    spans = base.mark_rule(strokeWidth=2, opacity=0.7).encode(
        alt.X("low:Q", title=placeholder("rho")), alt.X2("high:Q")
    )
    dots = base.mark_point(size=70, strokeWidth=2, opacity=1).encode(
        x, fill=alt.condition("datum.shown", alt.value(None), alt.value("var(--card)")),
    )  # fmt: skip
    filled = base.transform_filter("datum.shown").mark_point(size=70, filled=True, opacity=1)
    return alt.layer(zero_line(), spans, dots, filled.encode(x))


def epochs_chart() -> AnyChart:
    """Return validation accuracy by epoch: a line per trial, and a ring at the chosen epoch."""
    integers = alt.Axis(tickMinStep=1, format="d", grid=False)
    percents = alt.Axis(format="~%", tickCount=6)
    base = named_data("epochs").encode(
        alt.X("epoch:Q", scale=alt.Scale(zero=False, nice=False, padding=12), axis=integers),
        alt.Y("accuracy:Q", title="validation accuracy", scale=alt.Scale(zero=False),
              axis=percents),
        detail="trial:N",
        tooltip=["trial:N", "epoch:Q",
                 alt.Tooltip("accuracy:Q", title="validation accuracy", format=".2%"),
                 alt.Tooltip("color:N", title="learning rate"),
                 alt.Tooltip("dash:N", title=placeholder("dash"))],
    )  # fmt: skip
    lines = base.mark_line(point={"size": 25}, strokeWidth=2).encode(
        alt.Color(
            "color:N",
            sort=placeholder("colors"),
            title="learning rate",
            legend=placeholder("color_legend"),
        ),
        alt.StrokeDash(
            "dash:N",
            sort=placeholder("dashes"),
            title=placeholder("dash"),
            legend=placeholder("dash_legend"),
        ),
    )
    ring = base.transform_filter("datum.best").mark_point(size=190, strokeWidth=2, color=INK)
    return alt.layer(lines, ring).properties(height=300)


def convergence_chart() -> AnyChart:
    """Return the deviation of a measure on n images from all images: a line per dataset."""
    log_scale = alt.Scale(type="log", nice=False, padding=8)
    # There are eight colours, so every eighth dataset changes the dashes. Colours and dashes have
    # the same domain so that Vega-Lite merges their legends.
    dashes = [[1, 0]] * 8 + [[5, 3]] * 8 + [[2, 2]] * 8
    scale = {"domain": placeholder("datasets")}
    legend = placeholder("legend")
    lines = named_data("curves").mark_line(point={"size": 25}, strokeWidth=1.5).encode(
        alt.X("n:Q", scale=log_scale, title="images", axis=alt.Axis(grid=False, tickCount=5)),
        alt.Y("relative:Q", title=placeholder("deviation"),
              axis=alt.Axis(format=".0%", tickCount=5)),
        alt.Color("dataset:N", title=None, legend=legend, scale=scale),
        alt.StrokeDash("dataset:N", title=None, legend=legend, scale=scale | {"range": dashes}),
        tooltip=["dataset:N", alt.Tooltip("n:Q", title="images"),
                 alt.Tooltip("relative:Q", title="deviation", format=".1%")],
    )  # fmt: skip
    return lines.properties(height=300)


def evidence_chart() -> AnyChart:
    """Return the estimates behind one part of a finding, each with its interval."""
    y = alt.Y("cell:N", sort=placeholder("rows"), title=None, axis=plain_axis(labelLimit=360))
    scale = alt.Scale(domain=list(VOTE_COLOURS), range=list(VOTE_COLOURS.values()))
    colour = alt.Color("vote:N", title=None, legend=placeholder("legend"), scale=scale)
    estimate = alt.Tooltip("estimate:Q", format=".3f")
    cell = alt.Tooltip("cell:N", title="comparison")
    tooltip: list[str | alt.Tooltip] = [cell, "n:Q", estimate, *interval_tooltips(), "vote:N"]
    base = named_data("evidence").encode(y, colour, tooltip=tooltip)
    spans = base.mark_rule(strokeWidth=2, opacity=0.7).encode(
        alt.X("low:Q", title="estimate with 95% interval", axis=alt.Axis(tickCount=8)),
        alt.X2("high:Q"),
    )
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(alt.X("estimate:Q"))
    return alt.layer(zero_line(), spans, dots)


def task_chart() -> AnyChart:
    """Return the accuracies on one test: a dot per method, zero-shot a tick, chance a line."""
    y = alt.Y("model:N", sort=placeholder("models"), title=None, axis=plain_axis(labelLimit=140))
    x = alt.X("accuracy:Q", title="test accuracy", scale=alt.Scale(domain=[0, 1]),
              axis=alt.Axis(format=".0%", tickCount=5))  # fmt: skip
    tooltip = ["model:N", "method:N", alt.Tooltip("accuracy:Q", format=".2%")]
    chance = alt.Chart(alt.NamedData("chance")).mark_rule(strokeDash=[3, 3], color=INK, opacity=0.6)
    ticks = named_data("accuracies", "datum.zero_shot").mark_tick(thickness=3, size=22, color=INK)
    dots = named_data("accuracies", "!datum.zero_shot")
    dots = dots.mark_point(filled=True, size=90, opacity=0.9).encode(
        alt.Color("method:N", sort=placeholder("methods"), title=None),
        alt.Shape("method:N", sort=placeholder("methods"), legend=None),
    )
    chance = chance.encode(
        alt.X("accuracy:Q"), tooltip=[alt.Tooltip("accuracy:Q", title="chance level")]
    )
    parts = [part.encode(x, y, tooltip=tooltip) for part in (ticks, dots)]
    return alt.layer(chance, *parts)


def shots_chart() -> AnyChart:
    """Return the mean of an outcome over datasets by images per class, with its interval."""
    base = named_data("shots").encode(
        alt.X("shots:O", sort=placeholder("shots"), title="training images per class",
              axis=alt.Axis(labelAngle=0)),
        # The legend would have the opacity of the intervals.
        color=alt.Color("method:N", title=None, sort=placeholder("methods"),
                        legend=alt.Legend(symbolOpacity=1)),
        tooltip=["method:N", alt.Tooltip("shots:N", title="images per class"),
                 alt.Tooltip("mean:Q", format=".3f"), *interval_tooltips(), "seeds:Q"],
    )  # fmt: skip
    y = alt.Y("mean:Q", title=placeholder("outcome"), scale=alt.Scale(zero=False, padding=15))
    spans = base.mark_rule(strokeWidth=2, opacity=0.6).encode(
        alt.Y("low:Q", title=placeholder("outcome")), alt.Y2("high:Q")
    )
    lines = base.mark_line(point={"size": 60, "filled": True}, strokeWidth=2).encode(y)
    return alt.layer(spans, lines).properties(height=300)


CHARTS: dict[str, Callable[[], AnyChart]] = {
    "matrix": matrix_chart, "confusion": confusion_chart, "scatter": scatter_chart,
    "ranking": ranking_chart, "shots": shots_chart, "epochs": epochs_chart,
    "convergence": convergence_chart, "evidence": evidence_chart, "task": task_chart,
}  # fmt: skip


@functools.cache
def make_specification(make_chart: Callable[[], AnyChart]) -> dict:
    """Return the Vega-Lite specification of a kind of figure, without schema and config."""
    # Altair's validation would reject the placeholders.
    specification = make_chart().properties(width="container").to_dict(validate=False)
    return {key: part for key, part in specification.items() if key not in ("$schema", "config")}


def make_specifications(charts: dict[str, Callable[[], AnyChart]]) -> dict[str, dict]:
    """Return the specifications of kinds of figures by name."""
    return {kind: make_specification(make_chart) for kind, make_chart in charts.items()}
