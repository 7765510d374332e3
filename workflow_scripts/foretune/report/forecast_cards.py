"""Prepare the forecasts for the report: a card per dataset, and the tables behind the cards."""

from pathlib import Path
from typing import Any

import pandas as pd

from foretune.analysis.formatting import format_number, format_percent, format_points, is_known
from foretune.analysis.outcomes import GAIN
from foretune.report.page_data import PageTableData
from foretune.report.page_tables import (
    FORECAST_COLUMN_SPECS,
    RANKING_COLUMN_SPECS,
    drop_empty_columns,
    make_table,
)

# Outcomes of a card, in its order -> label and formatter.
CARD_OUTCOMES = {
    GAIN: ("gain over zero-shot error", format_number),
    "accuracy": ("accuracy", format_percent),
    "ood_change": ("change on other tasks, in points", format_points),
}


def describe_forecast(row: dict) -> dict[str, Any]:
    """Return one expected outcome as texts: the value, its interval, and the errors.

    row: of the table `forecasts`. The errors are leave-one-out errors on the datasets of the
    study: of the forecast, of the study's mean, and of the best other measure. `better` tells
    whether the first is smaller than the others.
    """
    label, show = CARD_OUTCOMES[row["outcome"]]
    errors = [row["loo_error"], row["loo_mean_error"], row["loo_rival_error"]]
    baselines = [error for error in errors[1:] if is_known(error)]
    return {
        "label": label, "short": label.split(",")[0], "expected": show(row["expected"]),
        "interval": f"{show(row['low'])} to {show(row['high'])}",
        "errors": [format_error(error, row["outcome"]) for error in errors],
        "better": is_known(errors[0]) and bool(baselines) and errors[0] < min(baselines),
    }  # fmt: skip


def format_error(value, outcome: str) -> str:
    """Return an error as text, in percentage points if the outcome is an accuracy or a change."""
    if outcome == GAIN or not is_known(value):
        return format_number(value)
    return f"{100 * value:.1f} points"


def describe_ranked(ranked: dict, forecasts: pd.DataFrame) -> dict[str, Any]:
    """Return a ranked model and method together with the outcomes that are expected of it."""
    rows = forecasts[(forecasts.model == ranked["model"]) & (forecasts.method == ranked["method"])]
    rows = rows[rows.outcome.isin(list(CARD_OUTCOMES)) & rows.expected.notna()]
    outcomes = rows.to_dict("records")
    outcomes.sort(key=lambda row: list(CARD_OUTCOMES).index(row["outcome"]))
    return ranked | {"outcomes": [describe_forecast(row) for row in outcomes]}


def make_card(dataset: str, ranked: pd.DataFrame, forecasts: pd.DataFrame) -> dict[str, Any]:
    """Return the card of one dataset from its rows of `rankings` and `forecasts`."""
    best = ranked[ranked["rank"].notna()].sort_values("rank", kind="stable").head(1)
    outside = forecasts[forecasts.outside.fillna(False).astype(bool)]
    notes = [set(note.split("; ")) for note in forecasts.note]
    return {
        "dataset": dataset, "weight": ranked.weight.iloc[0],
        "n_train": int(forecasts.n_train.max()), "models": int(forecasts.model.nunique()),
        "outside": sorted(set(outside.model)), "studied": int(forecasts.n.max()),
        "best": [describe_ranked(row, forecasts) for row in best.to_dict("records")],
        # Notes that all forecasts share; the table shows the others.
        "notes": sorted(set.intersection(*notes) - {""}),
    }  # fmt: skip


def make_forecast_cards(
    folder: Path | None,
) -> tuple[list[dict[str, Any]], dict[str, PageTableData]]:
    """Return a card per forecast dataset, and the tables behind the cards by name.

    folder: contains forecasts.parquet and rankings.parquet; None if nothing was forecast.
    """
    if folder is None:
        return [], {}
    forecasts = pd.read_parquet(Path(folder) / "forecasts.parquet")
    rankings = pd.read_parquet(Path(folder) / "rankings.parquet")
    cards = [
        make_card(dataset, ranked, forecasts[forecasts.dataset == dataset])
        for dataset, ranked in rankings.groupby("dataset", sort=False)
    ]
    contents = {
        "rankings": ("Ranking of models and methods", rankings, RANKING_COLUMN_SPECS),
        "forecasts": ("Forecasts", forecasts, FORECAST_COLUMN_SPECS),
    }
    tables = {
        name: (make_table(caption, name, drop_empty_columns(specs, frame)), frame)
        for name, (caption, frame, specs) in contents.items()
    }
    return cards, tables
