"""The forecast as a text for a terminal: the best choice, how far to trust it, and the ranking."""

import pandas as pd

from foretune.analysis.formatting import format_decimal, format_plain, is_known
from foretune.analysis.outcomes import GAIN

OUTCOME_TITLES = {
    GAIN: "gain over zero-shot error",
    "accuracy": "accuracy",
    "ood_change": "change on other tasks",
}
RANKING_TITLES = ("", "model", "method", "gain", "accuracy", "other tasks")
GLOSSARY = """\
gain over zero-shot error: the share of the zero-shot errors that fine-tuning removes
change on other tasks: the change of accuracy on the study's tasks; negative means forgetting
IIMM: the inter-intra modal measure of the zero-shot embeddings; every forecast is a line on it
"""


def describe_forecasts(forecasts: pd.DataFrame, rankings: pd.DataFrame) -> str:
    """Return the result of `forecast_datasets` as a text, one section per dataset."""
    lines = []
    for dataset, ranking in rankings.groupby("dataset", sort=False):
        lines += describe_dataset_forecast(
            str(dataset), forecasts[forecasts.dataset == dataset], ranking
        )
    weight = rankings.weight.iloc[0] if len(rankings) else 0
    lines.append(
        f"Ranked by {format_plain(1 - weight)} × gain + {format_plain(weight)} × change on other "
        "tasks."
    )
    if rankings["rank"].isna().any():
        lines.append("A row without a rank lacks an outcome that the ranking needs.")
    return "\n".join(lines) + "\n\n" + GLOSSARY


def describe_dataset_forecast(
    dataset: str, forecasts: pd.DataFrame, ranking: pd.DataFrame
) -> list[str]:
    """Return the lines about one dataset."""
    cells = {key: rows.iloc[0] for key, rows in forecasts.groupby(["model", "method", "outcome"])}
    best = ranking.iloc[0]
    best_cells = {name: cells[best.model, best.method, name] for name in OUTCOME_TITLES}
    images = forecasts.n_train.iloc[0]
    lines = [f"{dataset}: forecast from the zero-shot embeddings of {images} training images", ""]
    if is_known(best["rank"]) and is_known(best_cells[GAIN].expected):
        lines += [f"Best choice: model {best.model}, method {best.method}", ""]
        best_rows: list[tuple[str, ...]] = [("outcome", "expected", "95% interval")]
        best_rows += [
            (
                title,
                format_decimal(best_cells[name].expected),
                format_expected_interval(best_cells[name]),
            )
            for name, title in OUTCOME_TITLES.items()
        ]
        lines += [f"  {line}" for line in align_columns(best_rows)]
        lines += ["", *describe_trust(best_cells[GAIN]), ""]
    else:
        lines += ["There is no best choice, because no model and method can be ranked.", ""]
    lines += ["All models and methods, with the expected outcomes:", ""]
    rows: list[tuple[str, ...]] = [RANKING_TITLES]
    for run in ranking.to_dict("records"):
        rank = f"{format_plain(run['rank'])}." if is_known(run["rank"]) else ""
        expected = [cells[run["model"], run["method"], name].expected for name in OUTCOME_TITLES]
        rows.append((rank, run["model"], run["method"], *map(format_decimal, expected)))
    lines += align_columns(rows)
    for note, models in collect_notes(forecasts).items():
        lines += ["", f"Warning for {', '.join(models)}: {note}."]
    return [*lines, ""]


def collect_notes(forecasts: pd.DataFrame) -> dict[str, list[str]]:
    """Return the models that each note is about.

    An outcome that no dataset of the study has, such as a probe's forgetting, needs no warning.
    """
    models: dict[str, list[str]] = {}
    for row in forecasts[(forecasts.note != "") & (forecasts.n > 0)].itertuples():
        for note in row.note.split("; "):
            if row.model not in models.setdefault(note, []):
                models[note].append(row.model)
    return models


def align_columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Return one line per row, with columns padded to equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def format_expected_interval(cell: pd.Series) -> str:
    """Format the 95% interval of a forecast; a dash if there is none."""
    if not is_known(cell.low):
        return format_decimal(None)
    return f"{format_decimal(cell.low)} to {format_decimal(cell.high)}"


def describe_trust(cell: pd.Series) -> list[str]:
    """Return lines about the errors of such forecasts of gain on the study's own datasets.

    IIMM is compared with two baselines that do not use it.
    """
    baselines = [cell.loo_mean_error, cell.loo_rival_error]
    lines = [
        f"How far to trust it: when each of the study's {cell.n} datasets is forecast from the "
        "others,",
        "the gain is off on average by",
        f"  {format_decimal(cell.loo_error)} if forecast from IIMM, as here",
        f"  {format_decimal(cell.loo_mean_error)} if forecast as the mean of the others",
        f"  {format_decimal(cell.loo_rival_error)} if forecast from the best other measure",
    ]
    if is_known(cell.loo_error) and cell.loo_error >= min(filter(is_known, baselines)):
        lines.append("So IIMM forecasts no better than a baseline that does not use it.")
    return lines
