"""Forecasts as the report's cards: what to expect of a dataset, and how far to trust it."""

from pathlib import Path

import pandas as pd

from foretune.analysis.formatting import format_number, format_percent, format_points, is_known
from foretune.analysis.outcomes import GAIN
from foretune.report.page_tables import FORECAST_HEADS, RANKING_HEADS, make_table, select_heads

SHOWN_OUTCOMES = {
    GAIN: ("gain over zero-shot error", format_number),
    "accuracy": ("accuracy", format_percent),
    "ood_change": ("change on other tasks, in points", format_points),
}


def describe_forecast(row: dict) -> dict:
    """One expected outcome with its interval, and its error beside the two baselines'."""
    label, show = SHOWN_OUTCOMES[row["outcome"]]
    errors = [row["loo_error"], row["loo_mean_error"], row["loo_rival_error"]]
    others = [error for error in errors[1:] if is_known(error)]
    return {
        "label": label, "short": label.split(",")[0], "expected": show(row["expected"]),
        "interval": f"{show(row['low'])} to {show(row['high'])}",
        "errors": [show_error(error, row["outcome"]) for error in errors],
        "better": is_known(errors[0]) and bool(others) and errors[0] < min(others),
    }  # fmt: skip


def show_error(value, outcome: str) -> str:
    if outcome == GAIN or not is_known(value):
        return format_number(value)
    return f"{100 * value:.1f} points"


def describe_ranked(ranked: dict, forecasts: pd.DataFrame) -> dict:
    """A model and method with what is expected of it."""
    own = forecasts[(forecasts.model == ranked["model"]) & (forecasts.method == ranked["method"])]
    outcomes = own[own.outcome.isin(list(SHOWN_OUTCOMES)) & own.expected.notna()].to_dict("records")
    outcomes.sort(key=lambda row: list(SHOWN_OUTCOMES).index(row["outcome"]))
    return ranked | {"outcomes": [describe_forecast(row) for row in outcomes]}


def make_forecast_cards(folder: Path | None) -> tuple[list[dict], dict]:
    """A card for each dataset that was forecast, and the tables behind them by name.

    folder: of forecasts.parquet and rankings.parquet; None where nothing was forecast.
    """
    if folder is None:
        return [], {}
    forecasts = pd.read_parquet(Path(folder) / "forecasts.parquet")
    rankings = pd.read_parquet(Path(folder) / "rankings.parquet")
    cards = []
    for dataset, ranked in rankings.groupby("dataset", sort=False):
        own = forecasts[forecasts.dataset == dataset]
        first = ranked[ranked["rank"].notna()].sort_values("rank", kind="stable").head(1)
        outside = own[own.outside.fillna(False).astype(bool)]
        cards.append({
            "dataset": dataset, "weight": ranked.weight.iloc[0], "n_train": int(own.n_train.max()),
            "models": int(own.model.nunique()), "outside": sorted(set(outside.model)),
            "studied": int(own.n.max()),
            "best": [describe_ranked(row, own) for row in first.to_dict("records")],
            # What is said of every forecast; the rest stands in the table.
            "notes": sorted(set.intersection(*(set(note.split("; ")) for note in own.note)) - {""}),
        })  # fmt: skip
    shown = {
        "rankings": ("Ranking of models and methods", rankings, RANKING_HEADS),
        "forecasts": ("Forecasts", forecasts, FORECAST_HEADS),
    }
    tables = {
        name: (make_table(caption, name, select_heads(columns, frame)), frame)
        for name, (caption, frame, columns) in shown.items()
    }
    return cards, tables
