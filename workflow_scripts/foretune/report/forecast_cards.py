"""Prepare the forecasts for the report: answers per dataset, and the tables behind them."""

from pathlib import Path
from typing import Any

from foretune.analysis.tables import FORECAST_TABLE_NAMES
from foretune.core.parquet import read_frame
from foretune.report.forecast_answers import answer_forecast, select_dataset
from foretune.report.page_data import PageTableData
from foretune.report.page_tables import (
    FORECAST_COLUMN_SPECS,
    RANKING_COLUMN_SPECS,
    drop_empty_columns,
    make_table,
)


def make_forecast_cards(
    folder: Path | None,
) -> tuple[list[dict[str, Any]], dict[str, PageTableData]]:
    """Return the answers about each forecast dataset, and the tables behind them by name.

    folder: contains the tables of the forecasts; None if nothing was forecast.
    """
    if folder is None:
        return [], {}
    forecast = {name: read_frame(Path(folder) / f"{name}.parquet")
                for name in FORECAST_TABLE_NAMES}  # fmt: skip
    cards = [
        {"dataset": dataset, "answers": answer_forecast(select_dataset(forecast, dataset))}
        for dataset in forecast["forecasts"].dataset.unique()
    ]
    contents = {
        "rankings": ("Ranking of models and methods", RANKING_COLUMN_SPECS),
        "forecasts": ("Forecasts", FORECAST_COLUMN_SPECS),
    }
    tables = {
        name: (make_table(caption, name, drop_empty_columns(specs, forecast[name])), forecast[name])
        for name, (caption, specs) in contents.items()
    }
    return cards, tables
