"""Names of the tables in a study's `results/analysis`.

The rules import this module, so it must not import pandas or torch.
"""

# Results of the study's jobs, tidied and joined.
RESULT_TABLE_NAMES = (
    "outcomes",
    "clip_benchmark",
    "class_accuracy",
    "confusions",
    "tasks",
    "missing",
    "seeds",
    "base_to_new",
    "wise_ft",
    "front",
    "measures",
    "curves",
    "drift",
)
# Statistics of these results.
STATISTICS_TABLE_NAMES = (
    "statistics",
    "differences",
    "pooled",
    "trade_offs",
    "paper_tables",
    "findings",
    "findings_evidence",
)
# Every table that is written both as Parquet and as CSV.
TABLE_NAMES = RESULT_TABLE_NAMES + STATISTICS_TABLE_NAMES
# What a forecast consists of, in `results/forecast`.
FORECAST_TABLE_NAMES = ("forecasts", "candidates", "rankings", "learning")
# The forecasts of a half-done study's other half, in `results/forecast`.
PAIR_TABLE_NAMES = ("pairs", "pair_candidates")
# The report derives the findings from their evidence, does not list accuracies per class or of
# each WiSE-FT coefficient, and reads the pairs without a result from the metadata of the tasks.
TABLES_OUTSIDE_REPORT = ("clip_benchmark", "class_accuracy", "findings", "missing", "wise_ft")
REPORT_TABLE_NAMES = tuple(name for name in TABLE_NAMES if name not in TABLES_OUTSIDE_REPORT)
