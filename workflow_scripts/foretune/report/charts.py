"""The report's interactive figures: one Vega-Lite specification a kind, without its data.

The page fills in what its lists choose: each specification reads named data sets, and a string
that begins with "$" is a place for a value (an axis title, an order of names); a figure without a
height gets one by its rows.
"""

import functools

import altair as alt

# Middle tones: each has a contrast of at least 3 with the light page and with the dark one.
PALETTE = ["#3b82c4", "#c9661f", "#2f8f57", "#a65bb5", "#a3801a", "#d1495b", "#0e8f93", "#7d7f87"]
# A cell's black number turns white above this accuracy: its contrast is 4.5 at worst.
CELL_COLOURS, WHITE_ABOVE = ["#eaf2fb", "#0b3d80"], 0.68
# The page's own colour, so that light, dark and print need no second drawing.
INK = "currentColor"
LINE_LEGEND = {"symbolType": "stroke", "symbolFillColor": "transparent", "symbolStrokeWidth": 2.5}
VOTE_COLOURS = {"for": PALETTE[2], "against": PALETTE[5], "open": PALETTE[7]}


def named_data(name: str, *filters: str):
    chart = alt.Chart(alt.NamedData(name))
    for each in filters:
        chart = chart.transform_filter(each)
    return chart


def plain_axis(**options) -> alt.Axis:
    return alt.Axis(domain=False, ticks=False, grid=False, **options)


def matrix_cells(
    x_title: str, y_title: str, ink: str, colour: alt.Color, tooltip: list
) -> alt.LayerChart:
    """A matrix of coloured cells with their numbers, of the data set `matrix_cells` (x, y, value)."""
    axes = {"labelLimit": 130, "labelOverlap": False}
    top = plain_axis(orient="top", labelAngle=-35, **axes)
    base = named_data("cells").encode(
        alt.X("x:N", sort="$columns", title=x_title, axis=top),
        alt.Y("y:N", sort="$rows", title=y_title, axis=plain_axis(**axes)),
        tooltip=tooltip,
    )
    boxes = base.transform_filter("isValid(datum.value)").mark_rect(strokeWidth=2, cornerRadius=1)
    boxes = boxes.encode(
        colour, stroke=alt.condition("datum.own", alt.value(INK), alt.value(None)),
        order="own:Q",  # frames are drawn last, over their neighbours
    )  # fmt: skip
    numbers = base.mark_text(fontSize=12, color=alt.expr(ink)).encode(text="shown:N")
    return alt.layer(boxes, numbers)


def matrix_chart() -> alt.LayerChart:
    """Accuracy, trained on x evaluated on, the zero-shot row first."""
    scale = alt.Scale(domain=[0, 1], range=CELL_COLOURS, interpolate="rgb")
    ink = f"isValid(datum.value) ? datum.value > {WHITE_ABOVE} ? '#fff' : '#000' : '{INK}'"
    tooltip = [
        alt.Tooltip("y:N", title="trained on"),
        alt.Tooltip("x:N", title="evaluated on"),
        alt.Tooltip("value:Q", title="accuracy", format=".2%"),
        alt.Tooltip("zero_shot:Q", title="zero-shot", format=".2%"),
        alt.Tooltip("change:Q", title="change", format="+.2%"),
        alt.Tooltip("chance:Q", format=".2%"),
        alt.Tooltip("n:Q", title="test images"),
    ]
    colour = alt.Color("value:Q", scale=scale, legend=None)
    return matrix_cells("evaluated on", "trained on", ink, colour, tooltip)


def confusion_chart() -> alt.LayerChart:
    """Share of a class's images that were given each class, among the most confused classes."""
    scale = alt.Scale(domain=[0, 1], range=CELL_COLOURS, interpolate="rgb")
    ink = f"datum.value > {WHITE_ABOVE} ? '#fff' : '#000'"
    tooltip = [
        alt.Tooltip("y:N", title="class"),
        alt.Tooltip("x:N", title="predicted"),
        alt.Tooltip("n:Q", title="images"),
        alt.Tooltip("of:Q", title="of the class’s"),
        alt.Tooltip("value:Q", title="share", format=".1%"),
    ]
    colour = alt.Color("value:Q", scale=scale, legend=None)
    return matrix_cells("predicted", "class", ink, colour, tooltip)


def scatter_chart() -> alt.LayerChart:
    """Measure against outcome, the line and the 95% band of its mean."""
    x = alt.X("x:Q", title="$measure", scale=alt.Scale(zero=False, padding=28),
              axis=alt.Axis(tickCount=6, grid=False))  # fmt: skip
    y = alt.Y("y:Q", title="$outcome", scale=alt.Scale(zero=False, padding=18),
              axis=alt.Axis(tickCount=6))  # fmt: skip
    fit = named_data("fit")
    band = fit.mark_area(color=PALETTE[1], opacity=0.16).encode(
        x, alt.Y("low:Q", title="$outcome"), alt.Y2("high:Q")
    )
    line = fit.mark_line(color=PALETTE[1], strokeWidth=2).encode(x, y)
    dots = named_data("points").mark_point(filled=True, size=80, color=PALETTE[0], opacity=1).encode(
        x, y, tooltip=["dataset:N", alt.Tooltip("x:Q", title="$measure", format=".4f"),
                       alt.Tooltip("y:Q", title="$outcome", format=".4f")],
    )  # fmt: skip
    names = named_data("points", "datum.named").mark_text(dy=-11, color=INK, limit=110, fontSize=11)
    return alt.layer(band, line, dots, names.encode(x, y, text="dataset:N")).properties(height=340)


def ranking_chart() -> alt.LayerChart:
    """Spearman's rho of every measure with an outcome, with bootstrap intervals."""
    y = alt.Y("measure:N", sort="$rows", title=None, axis=plain_axis(labelLimit=170))
    x = alt.X("rho:Q", title="$rho", scale=alt.Scale(domain=[-1, 1]),
              axis=alt.Axis(values=[-1, -0.5, 0, 0.5, 1], titleAnchor="end"))  # fmt: skip
    tooltip = [
        "measure:N", alt.Tooltip("rho:Q", title="ρ", format=".3f"),
        alt.Tooltip("low:Q", title="95% from", format=".3f"),
        alt.Tooltip("high:Q", title="to", format=".3f"),
        alt.Tooltip("p:Q", title="permutation p", format=".3g"),
        alt.Tooltip("p_holm:Q", title="corrected p", format=".3g"),
    ]  # fmt: skip
    colour = alt.condition("datum.chosen", alt.value(PALETTE[1]), alt.value(PALETTE[0]))
    base = named_data("measures").encode(y, tooltip=tooltip, color=colour)
    zero = alt.Chart(alt.InlineData([{"x": 0}])).mark_rule(color=INK, opacity=0.5).encode(x="x:Q")
    spans = base.mark_rule(strokeWidth=2, opacity=0.7).encode(
        alt.X("low:Q", title="$rho"), alt.X2("high:Q")
    )
    dots = base.mark_point(size=70, strokeWidth=2, opacity=1).encode(
        x, fill=alt.condition("datum.shown", alt.value(None), alt.value("var(--card)")),
    )  # fmt: skip
    # A dot is full where the correlation is shown.
    full = base.transform_filter("datum.shown").mark_point(size=70, filled=True, opacity=1)
    return alt.layer(
        zero, spans, dots, full.encode(x)
    )  # fmt: skip


def trade_off_chart() -> alt.LayerChart:
    """Gain against forgetting, means over datasets: a point a method, and WiSE-FT's curves."""
    base = named_data("means").encode(
        alt.X("ood_change:Q", title="mean change on other tasks", scale=alt.Scale(padding=30),
              axis=alt.Axis(format="+.0%", tickCount=8)),
        alt.Y("gain:Q", title="mean gain over zero-shot error",
              axis=alt.Axis(tickCount=6), scale=alt.Scale(padding=20)),
        color=alt.Color("method:N", title=None, sort="$methods"),
        tooltip=["method:N", alt.Tooltip("wise_ft:Q", title="coefficient of the tuned weights"),
                 alt.Tooltip("ood_change:Q", title="change on other tasks", format="+.2%"),
                 alt.Tooltip("gain:Q", format=".3f")],
    )  # fmt: skip
    line = base.mark_line(strokeWidth=2).encode(order="wise_ft:Q")
    dots = base.mark_point(filled=True, opacity=1).encode(
        alt.Shape("method:N", legend=None, sort="$methods"),
        size=alt.condition("datum.wise_ft == 1", alt.value(130), alt.value(50)),
    )
    return alt.layer(line, dots).properties(height=340)


def epochs_chart() -> alt.LayerChart:
    """Validation accuracy per epoch, a line a trial, the chosen epoch ringed."""
    whole = alt.Axis(tickMinStep=1, format="d", grid=False)
    percents = alt.Axis(format="~%", tickCount=6)
    base = named_data("epochs").encode(
        alt.X("epoch:Q", scale=alt.Scale(zero=False, nice=False, padding=12), axis=whole),
        alt.Y("accuracy:Q", title="validation accuracy", scale=alt.Scale(zero=False),
              axis=percents),
        detail="trial:N",
        tooltip=["trial:N", "epoch:Q", alt.Tooltip("accuracy:Q", format=".2%"),
                 alt.Tooltip("color:N", title="learning rate"),
                 alt.Tooltip("dash:N", title="$dash")],
    )  # fmt: skip
    lines = base.mark_line(point={"size": 25}, strokeWidth=2).encode(
        alt.Color("color:N", sort="$colors", title="learning rate", legend="$color_legend"),
        alt.StrokeDash("dash:N", sort="$dashes", title="$dash", legend="$dash_legend"),
    )
    ring = base.transform_filter("datum.best").mark_point(size=190, strokeWidth=2, color=INK)
    return alt.layer(lines, ring).properties(height=300)


def convergence_chart() -> alt.Chart:
    """Deviation of a subset's measure against its number of images, a line a dataset."""
    size = alt.Scale(type="log", nice=False, padding=8)
    # Beyond eight datasets the colours begin again. Of one domain, both have one legend.
    dashes = [[1, 0]] * 8 + [[5, 3]] * 8 + [[2, 2]] * 8
    lines = named_data("curves").mark_line(point={"size": 25}, strokeWidth=1.5)
    return lines.encode(
        alt.X("n:Q", scale=size, title="images", axis=alt.Axis(grid=False, tickCount=5)),
        alt.Y("relative:Q", title="$deviation", axis=alt.Axis(format=".0%", tickCount=5)),
        alt.Color("dataset:N", title=None, legend="$legend", scale={"domain": "$datasets"}),
        alt.StrokeDash("dataset:N", title=None, legend="$legend",
                       scale={"domain": "$datasets", "range": dashes}),
        tooltip=["dataset:N", "n:Q", alt.Tooltip("relative:Q", title="deviation", format=".1%")],
    ).properties(height=300)  # fmt: skip


def evidence_chart() -> alt.LayerChart:
    """The cells of a finding's part, each an estimate with its interval."""
    y = alt.Y("cell:N", sort="$rows", title=None, axis=plain_axis(labelLimit=360))
    colour = alt.Color("vote:N", title=None, legend="$legend",
                       scale=alt.Scale(domain=list(VOTE_COLOURS), range=list(VOTE_COLOURS.values())))  # fmt: skip
    tooltip = ["cell:N", "n:Q", alt.Tooltip("estimate:Q", format=".3f"),
               alt.Tooltip("low:Q", title="95% from", format=".3f"),
               alt.Tooltip("high:Q", title="to", format=".3f"), "vote:N"]  # fmt: skip
    base = named_data("evidence").encode(y, colour, tooltip=tooltip)
    zero = alt.Chart(alt.InlineData([{"x": 0}])).mark_rule(color=INK, opacity=0.5).encode(x="x:Q")
    spans = base.mark_rule(strokeWidth=2, opacity=0.7).encode(
        alt.X("low:Q", title="estimate with 95% interval"), alt.X2("high:Q")
    )
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(alt.X("estimate:Q"))
    return alt.layer(zero, spans, dots)


def task_chart() -> alt.LayerChart:
    """One task: the accuracy of every model and method, zero-shot as a tick, chance as a line."""
    y = alt.Y("model:N", sort="$models", title=None, axis=plain_axis(labelLimit=140))
    x = alt.X("accuracy:Q", title="test accuracy", scale=alt.Scale(domain=[0, 1]),
              axis=alt.Axis(format=".0%", tickCount=5))  # fmt: skip
    tooltip = ["model:N", "method:N", alt.Tooltip("accuracy:Q", format=".2%")]
    chance = alt.Chart(alt.NamedData("chance")).mark_rule(strokeDash=[3, 3], color=INK, opacity=0.6)
    ticks = named_data("accuracies", "datum.zero_shot").mark_tick(thickness=3, size=22, color=INK)
    dots = named_data("accuracies", "!datum.zero_shot").mark_point(
        filled=True, size=90, opacity=0.9
    )
    dots = dots.encode(
        alt.Color("method:N", sort="$methods", title=None),
        alt.Shape("method:N", sort="$methods", legend=None),
    )
    chance = chance.encode(alt.X("accuracy:Q"), tooltip=[alt.Tooltip("accuracy:Q", title="chance")])
    parts = [part.encode(x, y, tooltip=tooltip) for part in (ticks, dots)]
    return alt.layer(chance, *parts)


def expected_chart() -> alt.LayerChart:
    """Forecasts of one outcome by model and method, each with its prediction interval."""
    y = alt.Y("run:N", sort="$rows", title=None, axis=plain_axis(labelLimit=220))
    tooltip = ["run:N", alt.Tooltip("expected:Q", format=".3f"),
               alt.Tooltip("low:Q", title="95% from", format=".3f"),
               alt.Tooltip("high:Q", title="to", format=".3f"),
               alt.Tooltip("study_mean:Q", title="the study’s mean", format=".3f")]  # fmt: skip
    base = named_data("forecasts").encode(y, tooltip=tooltip)
    spans = base.mark_rule(strokeWidth=3, color=PALETTE[0], opacity=0.5).encode(
        alt.X("low:Q", title="$expected", axis=alt.Axis(titleAnchor="end", tickCount=8)),
        alt.X2("high:Q"),
    )
    dots = base.mark_point(filled=True, size=80, color=PALETTE[0], opacity=1)
    ticks = base.mark_tick(thickness=2, size=14, color=INK).encode(alt.X("study_mean:Q"))
    return alt.layer(spans, ticks, dots.encode(alt.X("expected:Q")))


CHARTS = {
    "matrix": matrix_chart, "confusion": confusion_chart, "scatter": scatter_chart, "ranking": ranking_chart,
    "trade_off": trade_off_chart, "epochs": epochs_chart, "convergence": convergence_chart,
    "evidence": evidence_chart, "task": task_chart, "expected": expected_chart,
}  # fmt: skip


@functools.cache
def make_specifications() -> dict[str, dict]:
    """Every kind of figure as Vega-Lite, without the address of its schema."""
    made = {}
    for kind, draw in CHARTS.items():
        # A place for a value is no value: Altair could not check it.
        made[kind] = draw().properties(width="container").to_dict(validate=False)
        del made[kind]["$schema"], made[kind]["config"]
    return made
