"""The forecast as a text for a terminal: the answer, how far to trust it, and the ranking."""

import textwrap
from collections.abc import Mapping

import pandas as pd

from foretune.analysis.formatting import format_decimal, format_plain, is_known
from foretune.analysis.outcomes import GAIN
from foretune.analysis.pilots import PILOT_ACCURACY
from foretune.forecast.forecast import ForecastTables
from foretune.forecast.pairs import PairTables

WIDTH = 100  # of the text, in characters
RANKING_TITLES = ("", "model", "method", "accuracy", "95% interval", "gain", "other tasks", "from")
PAIR_TITLES = ("dataset", *RANKING_TITLES[1:])
MOST_RUNS = 5  # that a warning about pairs names
# How the forecast of a pair was made, by what was left out to measure its error.
PAIR_BASES = {
    "pair": "may use the accuracy of other models on the same dataset",
    "dataset": "uses other datasets only, since no other model has this one, or too few datasets "
    "have two models",
}
GLOSSARY = """\
gain: the share of the zero-shot errors that fine-tuning removes
other tasks: the mean change of accuracy on the study's tasks; negative means forgetting
from: what the forecast of the accuracy rests on; "measured" means fitted and tested on the images
"""


def describe_forecasts(tables: ForecastTables, notes: dict[str, list[str]] | None = None) -> str:
    """Return the result of `forecast_datasets` as a text, one section per dataset.

    notes: what the preparation of each dataset left out and noticed.
    """
    lines = []
    for dataset, ranking in tables.rankings.groupby("dataset", sort=False):
        lines += describe_dataset(str(dataset), tables, ranking.reset_index(drop=True))
        for note in (notes or {}).get(str(dataset), []):
            lines += [*textwrap.wrap(f"Note on {dataset}: {note}.", WIDTH), ""]
    weight = tables.rankings.weight.iloc[0] if len(tables.rankings) else 0
    lines.append(
        f"Ranked by {format_plain(1 - weight)} × accuracy + {format_plain(weight)} × change on "
        "other tasks."
    )
    if tables.rankings["rank"].isna().any():
        lines.append("A row without a rank lacks an outcome that the ranking needs.")
    return "\n".join(lines) + "\n\n" + GLOSSARY


def describe_pairs(tables: PairTables) -> str:
    """Return the result of `forecast_pairs` as a text."""
    by_pair = {
        key: rows.set_index("outcome")
        for key, rows in tables.pairs.groupby(["dataset", "model", "method"], sort=False)
    }
    answer = " ".join(answer_pairs(tables))
    lines = textwrap.wrap(answer, WIDTH, break_on_hyphens=False)
    if by_pair:
        rows: list[tuple[str, ...]] = [PAIR_TITLES]
        for key, cells in by_pair.items():
            rows.append((*key, *describe_outcomes(cells.to_dict("index"))))
        lines += ["", *align_columns(rows)]
    for note, runs in collect_notes(tables.pairs).items():
        names = runs if len(runs) < MOST_RUNS else [f"{len(runs)} models and methods"]
        lines += ["", *textwrap.wrap(f"Warning for {', '.join(names)}: {note}.", WIDTH)]
    return "\n".join(lines) + "\n\n" + GLOSSARY


def answer_pairs(tables: PairTables) -> list[str]:
    """Return the sentences that answer what the other half of a study will give."""
    accuracies = tables.pairs[tables.pairs.outcome == "accuracy"]
    if accuracies.empty:
        return ["Each dataset has an outcome by each model and method: nothing is to forecast."]
    sentences = [
        f"{len(accuracies)} of the study's combinations of dataset, model and method have no "
        "outcome yet. Nothing was fine-tuned to forecast them."
    ]
    known = accuracies[accuracies.expected.notna()]
    for left_out, basis in PAIR_BASES.items():
        part = known[known.left_out == left_out]
        if len(part):
            sentences.append(f"The forecast of {len(part)} accuracies {basis}.")
        for method, rows in part.groupby("method"):
            first = rows.iloc[0]
            sentences.append(
                f"When each {left_out} that has its outcome was forecast without it, an accuracy "
                f"by {method} was off by {format_decimal(first.loo_error)} on average; the "
                f"study's mean by {format_decimal(first.loo_mean_error)}."
            )
    if len(known) < len(accuracies):
        sentences.append(f"Too little is known to forecast {len(accuracies) - len(known)} of them.")
    return sentences


def describe_outcomes(cells: dict) -> tuple[str, ...]:
    """Return accuracy, interval, gain, change on other tasks and basis of a run's outcomes."""
    accuracy = cells["accuracy"]
    return (
        format_decimal(accuracy["expected"]), format_interval(accuracy),
        format_decimal(cells[GAIN]["expected"]), format_decimal(cells["ood_change"]["expected"]),
        accuracy["predictor"],
    )  # fmt: skip


def describe_dataset(dataset: str, tables: ForecastTables, ranking: pd.DataFrame) -> list[str]:
    """Return the lines about one dataset."""
    forecasts = tables.forecasts[tables.forecasts.dataset == dataset]
    cells = {key: rows.iloc[0] for key, rows in forecasts.groupby(["model", "method", "outcome"])}
    images = forecasts.n_train.iloc[0]
    lines = [f"{dataset}: forecast from the embeddings of {images} training images", ""]
    first = ranking.iloc[0]
    if is_known(first["rank"]):
        learning = tables.learning[
            (tables.learning.dataset == dataset)
            & (tables.learning.model == first.model)
            & (tables.learning.method == first.method)
        ]
        sentences = [
            *describe_answer(first, cells),
            *describe_lead(ranking),
            *describe_more_images(learning),
            *describe_trust(cells[first.model, first.method, "accuracy"]),
            *describe_pilot(cells[first.model, first.method, "accuracy"], tables.candidates),
        ]
        lines += textwrap.wrap(" ".join(sentences), WIDTH)
    else:
        lines.append("No model and method can be ranked, because a part of each score is unknown.")
    rows: list[tuple[str, ...]] = [RANKING_TITLES]
    for run in ranking.to_dict("records"):
        outcomes = {
            outcome: cells[run["model"], run["method"], outcome]
            for outcome in ("accuracy", GAIN, "ood_change")
        }
        rank = f"{format_plain(run['rank'])}." if is_known(run["rank"]) else ""
        rows.append((rank, run["model"], run["method"], *describe_outcomes(outcomes)))
    lines += ["", "All models and methods:", "", *align_columns(rows)]
    for note, runs in collect_notes(forecasts).items():
        lines += ["", *textwrap.wrap(f"Warning for {', '.join(runs)}: {note}.", WIDTH)]
    return [*lines, ""]


def describe_answer(first: pd.Series, cells: dict) -> list[str]:
    """Return the line that says what to expect of the first of the ranking."""
    accuracy = cells[first.model, first.method, "accuracy"]
    change = cells[first.model, first.method, "ood_change"]
    line = (
        f"Expect an accuracy of {format_decimal(accuracy.expected)} "
        f"({format_interval(accuracy)}) by {first.model} with {first.method}, "
        f"from {format_decimal(accuracy.zero_shot)} zero-shot"
    )
    if is_known(change.expected):
        line += (
            f"; accuracy on other tasks changes by {format_decimal(change.expected)} "
            f"({format_interval(change)})"
        )
    return [line + "."]


def describe_lead(ranking: pd.DataFrame) -> list[str]:
    """Return the line that says whether the first is shown to be better than the second."""
    if len(ranking) < 2 or not is_known(ranking["rank"][1]):
        return []
    second = ranking.iloc[1]
    name = f"{second.model} with {second.method}"
    if is_known(second.behind_low) and second.behind_low > 0:
        return [f"That is better than the next, {name}, by more than such forecasts are off."]
    return [
        f"That is not shown to be better than the next, {name}: the scores differ by "
        f"{format_decimal(second.behind)} ({format_interval(second, 'behind_')})."
    ]


def describe_more_images(learning: pd.DataFrame) -> list[str]:
    """Return the line that says what twice as many training images would add."""
    by_times = learning.set_index("times")
    if 2 not in by_times.index:
        return []
    now, twice = by_times.expected[1], by_times.loc[2]
    return [
        f"Twice as many images would add {format_decimal(twice.expected - now)} to the accuracy "
        f"({format_decimal(twice.low - now)} to {format_decimal(twice.high - now)})."
    ]


def describe_trust(accuracy: pd.Series) -> list[str]:
    """Return the line on how far such forecasts were off on the study's own datasets."""
    if accuracy.measured:
        return ["This accuracy is not a forecast: it was fitted and tested on the images."]
    return [
        f"When each of the study's {accuracy.n} datasets was forecast from the others, such an "
        f"accuracy was off by {format_decimal(accuracy.loo_error)} on average; the study's mean "
        f"by {format_decimal(accuracy.loo_mean_error)}, the line on IIMM by "
        f"{format_decimal(accuracy.loo_iimm_error)}."
    ]


def describe_pilot(accuracy: pd.Series, candidates: pd.DataFrame) -> list[str]:
    """Return the line on what the pilot of a forecast adds and costs, if the forecast uses it."""
    if PILOT_ACCURACY not in accuracy.predictor:
        return []
    rivals = candidates[(candidates.method == accuracy.method) & (candidates.outcome == "accuracy")]
    without = rivals[~rivals.candidate.str.contains(PILOT_ACCURACY)].loo_error.min()
    return [
        f"Its pilot took {accuracy.pilot_seconds:.0f} seconds. The best candidate that needs no "
        f"pilot was off by {format_decimal(without)}."
    ]


def collect_notes(forecasts: pd.DataFrame) -> dict[str, list[str]]:
    """Return the runs that each note is about."""
    runs: dict[str, list[str]] = {}
    for row in forecasts[forecasts.note != ""].itertuples():
        for note in row.note.split("; "):
            run = f"{row.model} {row.method}"
            if run not in runs.setdefault(note, []):
                runs[note].append(run)
    return runs


def align_columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Return one line per row, with columns padded to equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def format_interval(cell: Mapping | pd.Series, prefix: str = "") -> str:
    """Format the 95% interval of a forecast; a dash if there is none."""
    low, high = cell[f"{prefix}low"], cell[f"{prefix}high"]
    return f"{format_decimal(low)} to {format_decimal(high)}" if is_known(low) else "–"
