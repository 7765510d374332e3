"""Damaged files of JSON, Parquet and YAML are named in one readable message."""

import datetime
import json
from typing import NotRequired, TypedDict

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from checkout import ROOT
from foretune.core.config import check_config
from foretune.core.content_digests import ContentDigests
from foretune.core.errors import ForetuneError
from foretune.core.files import fits, read_json
from foretune.core.parquet import read_metadata, read_table
from foretune.core.study_file import read_study


class Point(TypedDict):
    n: int
    value: NotRequired[float | None]


class Facts(TypedDict):
    name: str
    points: list[Point]
    counts: dict[str, int]


GOOD = {"name": "a", "points": [{"n": 1, "value": 2}, {"n": 2}], "counts": {"x": 3}}


def test_read_json_returns_what_fits(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(GOOD))
    assert read_json(tmp_path / "a.json", Facts) == GOOD
    assert fits([True], list) and not fits(None, dict)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff", b"[]", b"null", b"[" * 100_000, b'{"name": 1}', b'{"points": {"n": 1}}',
        b'{"counts": {"x": "y"}}', b'{"points": [{"n": 1.5}]}', b'{"points": [{"value": ""}]}',
    ],
)  # fmt: skip
def test_read_json_refuses_damaged_files(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ForetuneError, match=r"a\.json: .*delete it and run again"):
        read_json(tmp_path / "a.json", Facts)


def test_read_json_names_a_missing_key_when_it_is_looked_up(tmp_path):
    (tmp_path / "a.json").write_text('{"points": [{"m": 1}]}')
    facts = read_json(tmp_path / "a.json", Facts)
    with pytest.raises(ForetuneError, match=r"a\.json: has no name"):
        facts["name"]
    with pytest.raises(ForetuneError, match=r"a\.json: has no n"):
        facts["points"][0]["n"]
    assert facts.get("name") is None and {**facts} == facts
    assert jinja2.Template("{{ f.name or 1 }}").render(f=facts) == "1"
    with pytest.raises(ForetuneError, match=r"b\.json: no such file"):
        read_json(tmp_path / "b.json")


def test_content_digests_replaces_a_damaged_store(tmp_path):
    store, path = tmp_path / "store.json", tmp_path / "a"
    path.write_bytes(b"a")
    digest = ContentDigests(store).digest(path)
    store.write_text(json.dumps({str(path): 5}))
    assert ContentDigests(store).digest(path) == digest


def test_parquet_files_with_damaged_pages_or_texts_are_named(tmp_path):
    table = pa.table({"split": ["train", "test"] * 50, "n": list(range(100))})
    pq.write_table(table, path := tmp_path / "a.parquet", use_dictionary=False, compression="none")
    good = path.read_bytes()
    for damaged in (
        good[:20] + b"\xff" * 40 + good[60:],  # the header of a page
        good.replace(b"train", b"tr\xffin"),  # a text that is not UTF-8
        good[:100],
    ):
        path.write_bytes(damaged)
        with pytest.raises(ForetuneError, match=r"a\.parquet: not a readable Parquet file"):
            read_table(path)
    path.write_bytes(good)
    with pytest.raises(ForetuneError, match=r"a\.parquet: has no column m"):
        read_table(path, ["m", "n"])


@pytest.mark.parametrize("facts", [b"{", b"[]", b"\xff", b"null"])
def test_read_metadata_refuses_damaged_metadata(facts, tmp_path):
    table = pa.table({"n": [1]}).replace_schema_metadata({"foretune": facts})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ForetuneError, match=r"a\.parquet: not "):
        read_metadata(tmp_path / "a.parquet")


def test_read_table_takes_no_columns_from_the_names_of_folders(tmp_path):
    (tmp_path / "run=3").mkdir()
    pq.write_table(pa.table({"n": [1]}), tmp_path / "run=3/a.parquet")
    assert read_table(tmp_path / "run=3/a.parquet").column_names == ["n"]


def test_messages_are_readable_lines():
    shown = str(ForetuneError("a\x1b[2J\x07b\u202ec é 猫 ‍\nnext " + "x" * 5000 + " end\n\n"))
    first, second = shown.split("\n")
    assert first == r"a\x1b[2J\x07b\u202ec é 猫 ‍"
    assert len(second) < 2000 and second.startswith("next") and second.endswith("end")


LISTS = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1},' * 9}]\n" for i in range(1, 12))
MERGES = "m0: &m0 {a: 1}\n" + "".join(
    f"m{i}: &m{i} {{<<: [{f'*m{i - 1},' * 9}]}}\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LISTS, "its aliases stand for more than 1,000,000 values"),
        (MERGES, "its aliases stand for more than 1,000,000 values"),
        ("x: &a [*a]\n", "line 1: a value that contains itself"),
        ("x: " + "[" * 99 + "]" * 99, "line 1: a value that has more than 50 levels"),
        ("x: 2020-13-45", "month must be in 1..12"),
    ],
)
def test_read_study_refuses_yaml_without_end(text, message, tmp_path):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ForetuneError, match=rf"s\.yaml: cannot be read: .*{message}"):
        read_study(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({False: "no", "a": "b"}, r"datasets\.mnist\.classes\.False: this key is not a text; put"),
        ({None: "b"}, r"datasets\.mnist\.classes\.None: this key is not a text"),
        ({1: "a", "1": "b"}, r"datasets\.mnist\.classes: a key appears twice, as a number and"),
        ({"a": datetime.date(2020, 1, 1)}, r"classes\.a: YAML reads a date; put it into quotes"),
        ({"a": {1, 2}}, r"classes\.a: YAML reads a set"),
        ([16**9999], r"datasets\.mnist\.classes\.0: the number is too large"),
    ],
)
def test_check_config_refuses_what_json_does_not_have(classes, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    study["datasets"]["mnist"]["classes"] = classes
    with pytest.raises(ForetuneError, match=message):
        check_config(study)


def test_check_config_takes_numbers_as_names_of_classes(monkeypatch):
    monkeypatch.chdir(ROOT)
    study = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    study["datasets"]["mnist"]["classes"] = {0: "zero", "ten": "10"}
    checked = check_config(study)
    assert checked["datasets"]["mnist"]["classes"] == {"0": "zero", "ten": "10"}
    json.dumps(checked, sort_keys=True)  # as a param of a rule
