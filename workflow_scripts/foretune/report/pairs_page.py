"""Build the page of a half-done study's other half: the forecasts of pairs without an outcome."""

from pathlib import Path

import pandas as pd

from foretune.core.parquet import read_frame
from foretune.forecast.pairs import PairTables
from foretune.forecast.text import answer_pairs
from foretune.report.build import REPORT_OUTCOMES, write_page
from foretune.report.forecast_page import CANDIDATE_COLUMN_SPECS
from foretune.report.page_data import pack_tables
from foretune.report.page_tables import (
    FORECAST_COLUMN_SPECS,
    ColumnSpecs,
    drop_empty_columns,
    make_table,
)

PAIR_SCRIPTS = ("data.js", "tables.js", "charts.js", "page.js")
LEFT_OUT_SPECS: ColumnSpecs = {"left_out": ("left out for the error", "text")}


def build_pairs_page(forecast: Path, output: Path) -> None:
    """Write the page as one HTML file.

    forecast: folder with the tables `pairs` and `pair_candidates`.
    """
    frames = {name: read_frame(Path(forecast) / f"{name}.parquet")
              for name in ("pairs", "pair_candidates")}  # fmt: skip
    pairs, candidates = frames["pairs"], frames["pair_candidates"]
    shown = candidates.assign(chosen=candidates.chosen.map({True: "yes", False: ""}))
    contents: dict[str, tuple[str, pd.DataFrame, ColumnSpecs]] = {
        "pairs": ("Pairs without an outcome", pairs, FORECAST_COLUMN_SPECS | LEFT_OUT_SPECS),
        "candidates": ("Candidates for each forecast, and how far they were off", shown,
                       CANDIDATE_COLUMN_SPECS | LEFT_OUT_SPECS),
    }  # fmt: skip
    tables = {
        name: (make_table(caption, name, drop_empty_columns(specs, frame)), frame)
        for name, (caption, frame, specs) in contents.items()
    }
    write_page(
        output, "pairs.html.j2", PAIR_SCRIPTS, pack_tables(tables), specs={},
        tables={name: table | {"rows": len(frame)} for name, (table, frame) in tables.items()},
        settings={"outcomes": REPORT_OUTCOMES, "runs": []},
        title="Forecasts for the rest of the study",
        missing=int((pairs.outcome == "accuracy").sum()),
        sentences=answer_pairs(PairTables(**frames)),
    )  # fmt: skip
