"""Answer in words what to expect of fine-tuning on a dataset that was forecast."""

from dataclasses import dataclass

import pandas as pd

from foretune.analysis.formatting import format_plain, format_points, is_known
from foretune.report.summary import Answer, format_run

SMALL_CHANGE = 0.005  # a smaller change of accuracy is called none
SMALL_HELP = 0.01  # more images that add less accuracy hardly help
MOST_NAMED = 4  # choices that a sentence lists


@dataclass(frozen=True)
class DatasetForecast:
    """The rows of one dataset in the tables of the forecast, and its first choice.

    first: the row of `rankings` that the page speaks about: rank 1 or, if no model and method is
    ranked, the highest expected accuracy.
    """

    dataset: str
    forecasts: pd.DataFrame
    rankings: pd.DataFrame
    learning: pd.DataFrame
    first: dict

    @property
    def run(self) -> str:
        """The first choice as "method on model"."""
        return format_run((self.first["model"], self.first["method"]))

    @property
    def ranked(self) -> bool:
        """Whether any model and method could be ranked."""
        return is_known(self.first["rank"])

    def find_outcome(self, outcome: str) -> dict:
        """Return the row of `forecasts` of the first choice's outcome; empty if there is none."""
        rows = select_run(self.forecasts, self.first)
        rows = rows[(rows.outcome == outcome) & rows.expected.notna()]
        return rows.iloc[0].to_dict() if len(rows) else {}


def select_run(frame: pd.DataFrame, run: dict) -> pd.DataFrame:
    """Return the rows of a model and method."""
    return frame[(frame.model == run["model"]) & (frame.method == run["method"])]


def select_dataset(tables: dict[str, pd.DataFrame], dataset: str) -> DatasetForecast:
    """Return the rows of one dataset in the tables `forecasts`, `rankings` and `learning`."""
    forecasts, rankings, learning = (
        tables[name][tables[name].dataset == dataset]
        for name in ("forecasts", "rankings", "learning")
    )
    accuracies = forecasts[forecasts.outcome == "accuracy"]
    order = rankings.merge(accuracies[["model", "method", "expected"]], "left")
    order = order.sort_values(["rank", "expected"], ascending=[True, False], na_position="last")
    return DatasetForecast(dataset, forecasts, rankings, learning, order.iloc[0].to_dict())


def format_share(value: float) -> str:
    """Format an accuracy as a whole percentage, which is as precise as a forecast is."""
    return f"{100 * value:.0f}%"


def format_size(difference: float) -> str:
    """Format the size of a difference of accuracies in percentage points."""
    points = f"{abs(100 * difference):.1f}"
    return f"{points} point{'s' * (points != '1.0')}"


def format_span(low: float, high: float) -> str:
    """Format an interval of accuracies."""
    return f"{format_share(low)} to {format_share(high)}"


def join_names(names: list[str]) -> str:
    """Return a list in words, with the number of those that are too many to name."""
    shown = names if len(names) <= MOST_NAMED + 1 else names[:MOST_NAMED]
    parts = shown if shown is names else [*shown, f"{len(names) - MOST_NAMED} more"]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def answer_forecast(forecast: DatasetForecast) -> list[Answer]:
    """Return the answers to what a user asks before fine-tuning."""
    return [
        answer_what_to_expect(forecast),
        answer_surely_best(forecast),
        answer_more_images(forecast),
        answer_how_far_off(forecast),
    ]


def answer_what_to_expect(forecast: DatasetForecast) -> Answer:
    """Answer which accuracy and which change on other tasks the first choice will have."""
    accuracy, sentences = forecast.find_outcome("accuracy"), []
    if not accuracy:
        answer = "Not known: no accuracy could be forecast."
    elif accuracy["measured"]:
        answer = f"{forecast.run} classifies {format_share(accuracy['expected'])} of the test "
        answer += "images correctly. This was measured, not forecast."
    else:
        method, model = forecast.first["method"], forecast.first["model"]
        share = format_share(accuracy["expected"])
        answer = f"With method {method} on model {model}, about {share} of new images will be "
        answer += "classified correctly."
    if accuracy and is_known(accuracy["low"]):
        span = format_span(accuracy["low"], accuracy["high"])
        sentences.append(f"The accuracy is likely to lie in the range {span} (95% interval).")
    if accuracy and is_known(accuracy["zero_shot"]):
        share = format_share(accuracy["zero_shot"])
        helps = accuracy["expected"] > accuracy["zero_shot"]
        end = "" if helps else ", so it is not expected to help"
        sentences.append(f"Without fine-tuning, the model classifies {share} correctly{end}.")
    sentences.append(describe_other_tasks(forecast.find_outcome("ood_change")))
    if accuracy and forecast.ranked:
        sentences += describe_unranked(forecast, accuracy["expected"])
    return {"question": "What is to be expected?", "answer": answer, "sentences": sentences}


def describe_other_tasks(change: dict) -> str:
    """Return a sentence about the expected change on other tasks. change: row, or empty."""
    if not change:
        return "What becomes of the accuracy on other tasks is not known."
    expected = change["expected"]
    if abs(expected) < SMALL_CHANGE:
        sentence = "On other tasks, the accuracy should stay about as it is"
    else:
        verb = "lose" if expected < 0 else "gain"
        sentence = f"On other tasks, it should {verb} about {format_size(expected)} of accuracy"
    if not is_known(change["low"]):
        return f"{sentence}."
    low, high = format_points(change["low"]), format_points(change["high"])
    return f"{sentence} (95% interval {low} to {high} points)."


def describe_unranked(forecast: DatasetForecast, accuracy: float) -> list[str]:
    """Return a sentence about the best run without a rank if it exceeds the accuracy."""
    unranked = forecast.rankings[forecast.rankings["rank"].isna()]
    rows = forecast.forecasts[forecast.forecasts.outcome == "accuracy"]
    rows = rows.merge(unranked[["model", "method"]])
    rows = rows[rows.expected > accuracy].sort_values("expected", ascending=False)
    return [
        f"{format_run((row['model'], row['method']))} reaches {format_share(row['expected'])}"
        f"{' (measured)' if row['measured'] else ''} but has no rank, because a part of its score "
        "is not known."
        for row in rows.head(1).to_dict("records")
    ]


def answer_surely_best(forecast: DatasetForecast) -> Answer:
    """Answer whether the first choice is shown to be better than the others."""
    question, first = "Is that surely the best choice?", forecast.first
    if not forecast.ranked:
        notes = {note for cell in forecast.rankings.note for note in cell.split("; ") if note}
        answer = "No model and method can be ranked."
        return {"question": question, "answer": answer, "sentences": [f"{n}." for n in notes]}
    others = forecast.rankings[forecast.rankings["rank"].notna()].sort_values("rank", kind="stable")
    is_first = (others.model == first["model"]) & (others.method == first["method"])
    others = others[~is_first]
    if others.empty:
        answer = "There is no other choice that could be ranked."
        return {"question": question, "answer": answer, "sentences": []}
    second = others.iloc[0].to_dict()
    name = format_run((second["model"], second["method"]))
    open_runs = others[~(others.behind_low > 0)]
    names = [format_run(run) for run in zip(open_runs.model, open_runs.method, strict=True)]
    if not names:
        answer = "Yes: it is shown to be better than every other choice."
    elif second["behind_low"] > 0:
        answer = f"It is shown to be better than the next, {name}, but not better than every other."
    else:
        answer = f"Not surely: {name} may be as good."
    sentences = [f"{name} is next, {format_size(second['behind'])} behind{format_behind(second)}."]
    if len(names) > 1:
        sentences.append(
            f"{len(names)} of the {len(others)} other choices may be as good: {join_names(names)}."
        )
    return {"question": question, "answer": answer, "sentences": [*sentences, explain(first)]}


def format_behind(row: dict) -> str:
    """Return the interval of how far a run is behind the first, in parentheses."""
    if not is_known(row["behind_low"]):
        return ""
    low, high = format_points(row["behind_low"]), format_points(row["behind_high"])
    return f" (95% interval {low} to {high})"


def explain(first: dict) -> str:
    """Return a sentence that says what the ranking compares. first: row of `rankings`."""
    weight = first["weight"]
    if weight == 0:
        return "The choices are compared by their accuracy."
    shares = f"{format_plain(1 - weight)} and the change on other tasks by {format_plain(weight)}"
    return f"The comparison weighs accuracy by {shares}."


def answer_more_images(forecast: DatasetForecast) -> Answer:
    """Answer whether more training images would raise the accuracy of the first choice."""
    rows = select_run(forecast.learning, forecast.first)
    rows = rows[rows.expected.notna()].sort_values("times")
    by_times = {int(row["times"]): row for row in rows.to_dict("records")}
    question = "Would more images help?"
    if not {1, 2} <= by_times.keys():
        answer = "Not known: there is no learning curve for this choice."
        return {"question": question, "answer": answer, "sentences": []}
    once = by_times[1]
    added = by_times[2]["expected"] - once["expected"]
    if added >= SMALL_HELP:
        answer = f"Yes: twice as many would add about {format_size(added)} of accuracy."
    else:
        answer = "Hardly: twice as many would add less than a point of accuracy."
    sentences = [
        f"With {times} times as many, {describe_row(row)}"
        for times, row in by_times.items()
        if times > 1
    ]
    now = f"With today’s {format_plain(once['n'])} images, {describe_row(once)}"
    return {"question": question, "answer": answer, "sentences": [now, *sentences]}


def describe_row(row: dict) -> str:
    """Return the accuracy of a row of `learning` as the end of a sentence."""
    # Today's accuracy has no interval of its own here: that of the first answer holds.
    if not is_known(row["low"]) or row["times"] == 1:
        return f"the accuracy should be {format_share(row['expected'])}."
    span = format_span(row["low"], row["high"])
    return f"the accuracy should be {format_share(row['expected'])} (95% interval {span})."


def answer_how_far_off(forecast: DatasetForecast) -> Answer:
    """Answer how far such forecasts were off on the study's own datasets."""
    question, accuracy = "How far were such forecasts off?", forecast.find_outcome("accuracy")
    if accuracy and accuracy["measured"]:
        answer = "The accuracy is no forecast: the method was fitted and tested on the folder."
    elif accuracy and is_known(accuracy["loo_error"]):
        answer = f"By {format_size(accuracy['loo_error'])} of accuracy on average."
    else:
        answer = "Not known: the study has too few datasets to tell."
    names = {"accuracy": "accuracy", "ood_change": "the change on other tasks"}
    sentences = [
        sentence
        for outcome, name in names.items()
        for sentence in describe_errors(forecast.find_outcome(outcome), name)
    ]
    return {"question": question, "answer": answer, "sentences": sentences}


def describe_errors(row: dict, name: str) -> list[str]:
    """Return sentences that compare the errors of a forecast with those of the study's mean."""
    if not row or row["measured"] or not is_known(row["loo_error"]):
        return []
    error, mean = row["loo_error"], row["loo_mean_error"]
    sentence = (
        f"When each of the study’s {format_plain(row['n'])} datasets was forecast from the others, "
        f"{name} was off by {format_size(error)} on average"
    )
    if not is_known(mean):
        return [f"{sentence}."]
    verdict = "better" if error < mean else "no better"
    baseline = f"the mean of the others was off by {format_size(mean)}"
    return [f"{sentence}; {baseline}. So such a forecast is {verdict} than the mean."]
