"""Specify the figure of gain against forgetting, with the front of both."""

from typing import Any

import altair as alt

from foretune.report.charts import INK, AnyChart, named_data, placeholder


def trade_off_chart() -> AnyChart:
    """Return mean gain against mean forgetting: a point per method, with the front and intervals.

    Curves connect the zero-shot model with a method through its WiSE-FT coefficients. Crosses are
    the 95% intervals of the fine-tuned models, and of all points on the front.
    """
    x_title, y_title = "mean change on other tasks", "mean gain over zero-shot error"
    percents = alt.Axis(format="+.1~%", labelExpr="datum.value ? datum.label : '0%'", tickCount=8)
    x = alt.X("change:Q", title=x_title, scale=alt.Scale(padding=30), axis=percents)
    y = alt.Y("gain:Q", title=y_title, axis=alt.Axis(tickCount=6),
              scale=alt.Scale(padding=20))  # fmt: skip
    # The legend would have the opacity of the intervals.
    colour = alt.Color("method:N", title=None, sort=placeholder("methods"),
                       legend=alt.Legend(symbolOpacity=1))  # fmt: skip
    tooltip: list[str | alt.Tooltip] = [
        "method:N", alt.Tooltip("wise_ft:Q", title="weight of the fine-tuned model"),
        alt.Tooltip("change:Q", title="change on other tasks", format="+.2%"),
        alt.Tooltip("change_low:Q", title="95% interval from", format="+.2%"),
        alt.Tooltip("change_high:Q", title="to", format="+.2%"),
        alt.Tooltip("gain:Q", title="gain over zero-shot error", format=".3f"),
        alt.Tooltip("gain_low:Q", title="95% interval of the gain from", format=".3f"),
        alt.Tooltip("gain_high:Q", title="to at most", format=".3f"),
        alt.Tooltip("front_share:Q", title="resamples with it on the front", format=".1%"),
    ]  # fmt: skip
    dashes: Any = {"interpolate": "step-before", "strokeDash": [4, 3], "color": INK, "opacity": 0.6}
    front = named_data("means", "datum.on_front").mark_line(**dashes)
    line = named_data("curves").mark_line(strokeWidth=2).encode(x, y, colour, order="wise_ft:Q")
    spans = named_data("means", "datum.spans").mark_rule(strokeWidth=1.5, opacity=0.5)
    spans = spans.encode(colour, tooltip=tooltip)
    wide = spans.encode(alt.X("change_low:Q", title=x_title), alt.X2("change_high:Q"), y)
    high = spans.encode(alt.Y("gain_low:Q", title=y_title), alt.Y2("gain_high:Q"), x)
    dots = named_data("means", "datum.wise_ft").mark_point(filled=True, opacity=1).encode(
        x, y, colour, alt.Shape("method:N", legend=None, sort=placeholder("methods")),
        size=alt.condition("datum.wise_ft == 1", alt.value(130), alt.value(50)), tooltip=tooltip,
    )  # fmt: skip
    start = named_data("means", "!datum.wise_ft").mark_point(color=INK, size=90, strokeWidth=2)
    parts = [front.encode(x, y, order="change:Q"), line, wide, high, dots]
    return alt.layer(*parts, start.encode(x, y, tooltip=tooltip)).properties(height=380)
