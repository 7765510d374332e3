"""Tests of the table of pairs without a result, and of the lines that describe it."""

import json

import pytest

from foretune.analysis.missing import describe_missing, list_unfinished, tabulate_missing

STUDY = {
    "models": {"clip": {}, "coca": {}},
    "datasets": {"mnist": {}, "digits": {}},
    "methods": {"full": {"models": ["clip", "coca"]}, "lora": {"models": ["clip"]}},
}
PAIR = {"model": "clip", "method": "full"}


@pytest.fixture
def files(tmp_path):
    """Return selections, one of which diverged, and the measures of three of four tasks."""

    def write(name, content):
        (tmp_path / name).write_text(json.dumps(content))
        return tmp_path / name

    selections = [
        write("mnist", PAIR | {"dataset": "mnist", "trial": 1}),
        write("digits", PAIR | {"dataset": "digits", "trial": 1}),
        write("lora", PAIR | {"method": "lora", "dataset": "mnist", "diverged": True}),
    ]
    tasks = [("clip", "mnist"), ("clip", "digits"), ("coca", "mnist")]
    return selections, [
        write(f"{model}-{dataset}", {"model": model, "dataset": dataset})
        for model, dataset in tasks
    ]


def test_unfinished_pairs_are_those_without_a_test(files):
    selections, measures = files
    rows = list_unfinished(STUDY, {("clip", "full", "mnist")}, selections, measures)
    assert [tuple(row.values()) for row in rows] == [
        ("coca", "", "digits", "not measured yet"),
        ("clip", "full", "digits", "trained, not tested yet"),
        ("coca", "full", "mnist", "not trained yet"),
        ("coca", "full", "digits", "not trained yet"),
        ("clip", "lora", "digits", "not trained yet"),
    ]
    table = tabulate_missing(
        [json.loads(path.read_text()) for path in selections], rows
    )  # it has the pair that diverged as well
    assert len(table) == 6 and table.note[0].startswith("every trial diverged")
    assert table.columns.to_list() == ["model", "method", "dataset", "note"]


def test_nothing_is_unfinished_of_a_study_of_given_outcomes(files):
    study = STUDY | {"outcomes": "outcomes.csv", "models": {"clip": {}}}
    assert list_unfinished(study, set(), *files) == []


def test_missing_pairs_of_one_run_and_reason_are_one_line():
    rows = [PAIR | {"dataset": name, "note": "not trained yet"} for name in ("a", "b")]
    rows += [{"model": "coca", "method": "", "dataset": f"d{i}", "note": "no"} for i in range(9)]
    assert describe_missing(rows) == [
        "clip, full on a, b: not trained yet", "coca on 9 datasets: no"
    ]  # fmt: skip
