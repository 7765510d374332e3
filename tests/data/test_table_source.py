"""Tables of images: values are texts, and rows that do not fit are said."""

import os

import numpy as np
import pytest
from PIL import Image

from foretune.core.errors import ForetuneError
from foretune.data.notes import read_notes
from foretune.data.prepare import prepare_dataset
from foretune.data.prepared import read_split
from foretune.data.sources.table import digest_table_files

SPLITS = {"train": "split == 'train'", "test": "split == 'test'"}


@pytest.fixture
def table(tmp_path):
    """Return a function that writes 40 images and a table, and one that prepares it."""
    rng = np.random.default_rng(0)
    for i in range(40):
        picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        picture.save(tmp_path / f"{i:06}.png")

    def write(label, split=lambda i: "test" if i % 4 == 0 else "train", **columns):
        names = ["id", "label", "split", *columns]
        lines = [",".join(names)]
        for i in range(40):
            cells = [f"{i:06}", label(i), split(i), *(make(i) for make in columns.values())]
            lines.append(",".join(cells))
        (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")

    def prepare(**spec):
        entry = {"table": str(tmp_path / "list.csv"), "image": "{id}.png", "label": "label",
                 "splits": SPLITS, **spec}  # fmt: skip
        return prepare_dataset("d", entry, tmp_path / "out", seed=0)

    return write, prepare


@pytest.mark.parametrize(
    "labels", [("DE", "NA"), ("None", "nan"), ("01", "02"), ("1e3", "1000", "7"), ("null", "N/A")]
)
def test_labels_are_the_texts_of_the_table(labels, table):
    write, prepare = table
    write(lambda i: labels[i % len(labels)])
    expected = sorted(labels, key=lambda text: (len(text.lstrip("0")), text))
    classes = prepare()["source_classes"]
    assert set(classes) == {name.replace("/", " ") for name in expected}


@pytest.mark.parametrize("separator", [", ", ";", "\t", "; "])
def test_columns_have_any_usual_separator(separator, table, tmp_path):
    write, prepare = table
    write(lambda i: "ab"[i % 2], note=lambda i: '"one, two"')
    path = tmp_path / "list.csv"
    rows = path.read_text().replace('"one, two"', "X").replace(",", separator)
    path.write_text(rows.replace("X", '"one, two"'))
    manifest = prepare()
    assert manifest["classes"] == ["a", "b"]
    assert sum(facts["rows"] for facts in manifest["splits"].values()) == 40


def test_a_table_in_another_encoding_says_what_to_do(table, tmp_path):
    write, prepare = table
    write(lambda i: "ab"[i % 2])
    path = tmp_path / "list.csv"
    path.write_bytes(path.read_text().encode("utf-16"))
    with pytest.raises(ForetuneError, match=r"list\.csv: is not in UTF-8; save it as CSV in UTF-8"):
        prepare()


def test_conditions_see_numbers(table):
    write, prepare = table
    write(lambda i: "ab"[i % 2], year=lambda i: "NA" if i == 1 else str(2000 + i),
          keep=lambda i: str(i > 3))  # fmt: skip
    splits = {"train": "year < 2030 and keep", "test": "year >= 2030"}
    manifest = prepare(splits=splits, image="{row:06d}.png")
    assert sum(facts["rows"] for facts in manifest["splits"].values()) == 36


def test_rows_that_do_not_fit_are_named(table, tmp_path):
    write, prepare = table
    write(lambda i: "" if i in (3, 5) else "ab"[i % 2])
    with pytest.raises(ForetuneError, match=r"no label in row 3, 5 \(counted from 0\)"):
        prepare()
    write(lambda i: "ab"[i % 2])
    with pytest.raises(ForetuneError, match="has no column nope, but id, label, split"):
        prepare(image="{nope}.png")
    with pytest.raises(ForetuneError, match=r"\{id:5q\} does not fit"):
        prepare(image="{id:5q}.png")
    with pytest.raises(ForetuneError, match=r"is not a template"):
        prepare(image="{id.png")
    with pytest.raises(ForetuneError, match=r"has no column id\.__class__"):
        prepare(image="{id.__class__}.png")
    with pytest.raises(ForetuneError, match=r"`splits`: train: 'nope > 3' cannot be evaluated"):
        prepare(splits={**SPLITS, "train": "nope > 3"})
    os.remove(tmp_path / "000007.png")
    os.remove(tmp_path / "000009.png")
    with pytest.raises(ForetuneError) as caught:
        prepare()
    assert "000007.png: cannot be read" in str(caught.value) and "000009.png" in str(caught.value)


def test_overlapping_splits_and_left_out_rows_are_said(table, tmp_path):
    write, prepare = table
    write(lambda i: "ab"[i // 4 % 2], lambda i: ("train", "test", "both", "neither ")[i % 4])
    prepare(splits={"train": "split in ('train', 'both')", "test": "split in ('test', 'both')"})
    left_out, both, leaked = read_notes(tmp_path / "out")[:3]
    assert left_out == "left out: rows of no split 10"
    assert both == "rows of the table that are in train and in test: 10"
    assert leaked.startswith("10 of 20 test images are also among the training images")


def test_rows_without_a_group_are_groups_of_their_own(table, tmp_path):
    write, prepare = table
    write(lambda i: "ab"[i % 2], patient=lambda i: "" if i % 4 else f"{i // 8:02}")
    prepare(group="patient", splits={"train": "split == 'train'", "test": "split == 'test'"})
    groups = read_split(tmp_path / "out", "train")["group"].to_pylist()
    assert len(set(groups)) == len(groups) == 27
    groups = read_split(tmp_path / "out", "test")["group"].to_pylist()
    assert sorted(set(groups)) == ["00", "01", "02", "03", "04"]


def test_paths_may_be_absolute_and_a_column_may_be_called_row(table, tmp_path):
    write, prepare = table
    write(lambda i: "ab"[i % 2], row=lambda i: str(tmp_path / f"{i:06}"))
    assert prepare(image="{row}.png")["splits"]["test"]["rows"] == 10
    write(lambda i: "ab"[i % 2])
    assert prepare(image="{row:06d}.png")["splits"]["test"]["rows"] == 10


def test_digest_table_files_notices_a_changed_image(table, tmp_path):
    write, _ = table
    write(lambda i: "ab"[i % 2])
    spec = {"table": str(tmp_path / "list.csv"), "image": "{id}.png", "label": "label"}
    first = digest_table_files(spec)
    assert digest_table_files(spec) == first
    os.utime(tmp_path / "000003.png", (0, 0))
    second = digest_table_files(spec)
    os.remove(tmp_path / "000003.png")
    assert len({first, second, digest_table_files(spec)}) == 3
    assert digest_table_files({**spec, "table": str(tmp_path / "none.csv")})


@pytest.mark.parametrize("condition", ["train", "train + 1", "1", "[0, 1]", "index", "label"])
def test_a_condition_is_true_or_false_for_each_row(condition, table):
    """pandas would take a column of 0 and 1 for the numbers of the rows 0 and 1."""
    write, prepare = table
    write(lambda i: "ab"[i % 2], train=lambda i: str(int(i % 4 > 0)))
    with pytest.raises(ForetuneError, match=r"not true or false for|cannot be evaluated"):
        prepare(splits={"train": condition, "test": "train == 0"})
    manifest = prepare(splits={"train": "train == 1", "test": "train == 0"})
    assert sum(facts["rows"] for facts in manifest["splits"].values()) == 40


def test_values_without_a_column_are_not_cut_off(table, tmp_path):
    """An empty one at the end of each line is no value."""
    write, prepare = table
    write(lambda i: "ab"[i % 2])
    path = tmp_path / "list.csv"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *(f"{line}," for line in lines)]))
    assert prepare()["classes"] == ["a", "b"]
    path.write_text("\n".join([header, *(f"{line},x" for line in lines)]))
    with pytest.raises(ForetuneError, match=r"list\.csv: .*more values than the first line has"):
        prepare()


@pytest.mark.parametrize("field", ["row:s", "number:>99999999", "label:d", "number:{row}"])
def test_a_format_that_does_not_fit_is_named(field, table, tmp_path):
    write, prepare = table
    write(lambda i: "ab"[i % 2], number=str)
    with pytest.raises(ForetuneError, match=r"list\.csv: `image`: .* does not fit"):
        prepare(image=f"{{{field}}}.png")
    spec = {"table": str(tmp_path / "list.csv"), "image": f"{{{field}}}", "label": "label"}
    assert digest_table_files(spec)  # planning goes on, and the job says what is wrong
