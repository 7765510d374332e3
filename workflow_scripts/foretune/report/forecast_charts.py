"""Specify the figures of forecasts: expected outcomes, learning curve, place in the study."""

from collections.abc import Callable

import altair as alt

from foretune.report.charts import (
    INK,
    PALETTE,
    AnyChart,
    interval_tooltips,
    named_data,
    placeholder,
    plain_axis,
)


def outlook_chart() -> AnyChart:
    """Return the forecasts of one outcome by model and method, with their intervals.

    A diamond marks what was measured and not forecast, and a vertical tick the zero-shot model.
    """
    y = alt.Y("run:N", sort=placeholder("rows"), title=None, axis=plain_axis(labelLimit=220))
    tooltip = [alt.Tooltip("run:N", title="model, method"),
               alt.Tooltip("expected:Q", format=".3f"), *interval_tooltips(),
               alt.Tooltip("zero_shot:Q", title="zero-shot model", format=".3f")]  # fmt: skip
    base = named_data("forecasts").encode(y, tooltip=tooltip)
    axis = alt.Axis(titleAnchor="end", tickCount=6, format=placeholder("format"))
    spans = base.transform_filter("isValid(datum.low)")
    x = {"title": placeholder("expected"), "axis": axis, "scale": alt.Scale(zero=False, padding=12)}
    spans = spans.mark_rule(strokeWidth=3, color=PALETTE[0], opacity=0.5).encode(
        alt.X("low:Q", **x), alt.X2("high:Q")
    )
    shape = alt.condition("datum.measured", alt.value("diamond"), alt.value("circle"))
    dots = base.mark_point(filled=True, size=90, color=PALETTE[0], opacity=1)
    dots = dots.encode(alt.X("expected:Q", **x), shape=shape)
    ticks = base.transform_filter("isValid(datum.zero_shot)")
    ticks = ticks.mark_tick(thickness=2, size=14, color=INK).encode(alt.X("zero_shot:Q"))
    return alt.layer(spans, ticks, dots)


def learning_chart() -> AnyChart:
    """Return accuracy by the number of training images: of the probe, and as it is forecast."""
    axis = alt.Axis(grid=False, tickCount=5, labelOverlap=True)
    base = named_data("learning").encode(
        alt.X("n:Q", title="training images", axis=axis,
              scale=alt.Scale(type="log", nice=False, padding=16)),
        alt.Color("series:N", sort=placeholder("series"), legend=placeholder("legend"), title=None),
        tooltip=["series:N", alt.Tooltip("n:Q", title="images"),
                 alt.Tooltip("accuracy:Q", format=".1%"),
                 alt.Tooltip("low:Q", title="95% interval from", format=".1%"),
                 alt.Tooltip("high:Q", title="to", format=".1%")],
    )  # fmt: skip
    y = alt.Y("accuracy:Q", title="accuracy", scale=alt.Scale(zero=False, padding=12),
              axis=alt.Axis(format="~%", tickCount=6))  # fmt: skip
    spans = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=3, opacity=0.4)
    spans = spans.encode(alt.Y("low:Q", title="accuracy"), alt.Y2("high:Q"))
    lines = base.mark_line(point={"size": 60, "opacity": 1}, strokeWidth=2).encode(y)
    return alt.layer(spans, lines).properties(height=320)


def place_chart() -> AnyChart:
    """Return a predictor against accuracy over the study's tasks, with the new task among them."""
    tooltip = [alt.Tooltip("dataset:N"), alt.Tooltip("x:Q", title=placeholder("x"), format=".1%"),
               alt.Tooltip("accuracy:Q", format=".1%"), *interval_tooltips()]  # fmt: skip
    axis = alt.Axis(format="~%", tickCount=6, grid=False)
    base = named_data("tasks").encode(
        alt.X("x:Q", title=placeholder("x"), axis=axis, scale=alt.Scale(zero=False, padding=28)),
        color=alt.condition("datum.forecast", alt.value(PALETTE[1]), alt.value(PALETTE[0])),
        tooltip=tooltip,
    )  # fmt: skip
    y = alt.Y("accuracy:Q", title="accuracy", scale=alt.Scale(zero=False, padding=18),
              axis=alt.Axis(format="~%", tickCount=6))  # fmt: skip
    spans = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=3, opacity=0.5)
    spans = spans.encode(alt.Y("low:Q", title="accuracy"), alt.Y2("high:Q"))
    dots = base.mark_point(filled=True, opacity=1).encode(
        y, size=alt.condition("datum.forecast", alt.value(160), alt.value(80))
    )
    names = base.transform_filter("datum.named")
    names = names.mark_text(dy=-13, limit=110, fontSize=11).encode(
        y, text="dataset:N", color=alt.value(INK)
    )
    return alt.layer(spans, dots, names).properties(height=340)


FORECAST_CHARTS: dict[str, Callable[[], AnyChart]] = {
    "expected": outlook_chart,
    "learning": learning_chart,
    "place": place_chart,
}
