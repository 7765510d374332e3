"""Read sources on this machine: Parquet files and image folders. Tables are read in table.py."""

import csv
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from foretune.core.errors import ForetuneError
from foretune.core.parquet import explain_parquet_errors, read_metadata, read_table
from foretune.data.sources.base import (
    DEFAULT_CAPTION,
    NOT_STATED,
    TRAIN_AND_TEST,
    ImageRow,
    ImageRows,
    ImageSource,
    make_file_rows,
    make_groups,
)
from foretune.data.sources.layout import (
    choose_classes,
    describe_unused_folders,
    find_splits,
    list_part,
    refuse_parts,
)

GROUPS_FILE = "groups.csv"


def read_parquet_source(path: Path, wanted: tuple[str, ...] = TRAIN_AND_TEST) -> ImageSource:
    """Read a Parquet file with the columns image, label and split, and group if there are groups.

    Its `foretune` metadata has the classes, the caption, the licence and the source.

    Raises:
        ForetuneError: the file is no such dataset; the message says what it lacks.
    """
    facts = read_metadata(path)
    with explain_parquet_errors(path):
        schema = pq.read_schema(path)
    columns = schema.names
    missing = [key for key in ("classes", "caption", "licence", "source") if key not in facts]
    missing += [name for name in ("image", "label", "split") if name not in columns]
    if missing:
        raise ForetuneError(f"{path}: not a dataset: it lacks {', '.join(missing)}")
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise ForetuneError(f"{path}: has more than one column {', '.join(twice)}")
    label, image = schema.field("label").type, schema.field("image").type
    if not pa.types.is_integer(label):
        raise ForetuneError(f"{path}: the column label has {label}, and needs integers from 0 on")
    if not (pa.types.is_binary(image) or pa.types.is_large_binary(image)):
        raise ForetuneError(f"{path}: the column image has {image}, and needs encoded bytes")
    classes = facts["classes"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ForetuneError(f"{path}: classes in its metadata is not a list of texts: {classes!r}")
    for key in ("caption", "licence", "source"):
        if not isinstance(facts[key], str):
            raise ForetuneError(f"{path}: {key} in its metadata is not a text: {facts[key]!r}")
    if "{}" not in facts["caption"]:
        raise ForetuneError(f"{path}: caption in its metadata has no {{}}: {facts['caption']!r}")
    small = [name for name in ("label", "split", "group") if name in columns]
    table = read_table(path, small).to_pydict()
    for number, split in enumerate(table["split"]):
        if split not in TRAIN_AND_TEST:
            raise ForetuneError(f"{path}: row {number}: split {split!r} is not train or test")

    def read(split: str) -> Iterator[ImageRow]:
        number, columns = 0, ["image", "label", "split"]
        with explain_parquet_errors(path):
            for batch in pq.ParquetFile(path).iter_batches(1024, columns=columns):
                for row in batch.to_pylist():
                    if row["split"] == split:
                        empty = ForetuneError(f"{path}: row {number}: has no image")
                        yield ImageRow(f"{number:06d}", row["image"] or empty, row["label"])
                    number += 1

    def select(column: str, wanted_split: str) -> list:
        pairs = zip(table[column], table["split"], strict=True)
        return [value for value, split in pairs if split == wanted_split]

    rows = {
        split: ImageRows(
            select("label", split),
            partial(read, split),
            make_groups(select("group", split)) if "group" in table else None,
        )
        for split in wanted
    }
    return ImageSource(classes, facts["caption"], facts["licence"], facts["source"], rows)


def read_folder_source(
    folder: Path, wanted: tuple[str, ...] = TRAIN_AND_TEST, are_classes: bool = False
) -> ImageSource:
    """Read a folder with one subfolder per class, or with `train/` and `test/` made up like that.

    `Training/`, `test_set/` and the like are read as splits, too. If only the test is wanted and
    there is a `test/`, it is read alone, as an undivided source. A file `groups.csv` in the folder
    may give images their groups, see `read_groups`. Subfolders without an image are no classes.

    Args:
        are_classes: the subfolders are classes even if they look like parts of a dataset.

    Raises:
        ForetuneError: the folder is missing or has another layout, its groups cannot be read, or
            the name of an image or class cannot be kept.
    """
    if not folder.is_dir():
        raise ForetuneError(f"{folder}: no such folder")
    groups, top, splits = read_groups(folder / GROUPS_FILE), folder, find_splits(folder)
    if "train" not in wanted and "test" in splits:
        folder, splits = splits["test"], {}
    notes = describe_unused_folders(folder, splits)
    if splits:
        parts = {split: list_part(splits[split]) for split in TRAIN_AND_TEST}
    else:
        if not are_classes:
            refuse_parts(folder)
        parts = {"all": list_part(folder)}
    left_out: Counter[str] = Counter()
    for part in parts.values():
        left_out += part.listing.left_out
    if groups is not None and folder == top and not splits:
        left_out[".csv"] -= 1
    classes = choose_classes(parts, +left_out, notes)
    rows = {}
    for split in wanted if splits else ("all",):
        part = parts[split]
        by_folder: dict[str, list[str]] = {}
        for name in part.listing.images:
            by_folder.setdefault(name.split("/")[0], []).append(name)
        prefix = f"{part.root.name}/" if splits else ""
        files = [
            (prefix + name, label)
            for label, class_name in enumerate(classes)
            for name in by_folder.get(part.classes.get(class_name, ""), [])
        ]
        listed = [str(folder.relative_to(top) / name) for name, _ in files]
        file_groups = None if groups is None else [groups.get(name, name) for name in listed]
        rows[split] = make_file_rows(folder, files, file_groups)
    return ImageSource(
        classes, DEFAULT_CAPTION, NOT_STATED, f"folder {folder}", rows, +left_out, notes
    )


def read_groups(path: Path) -> dict[str, str] | None:
    """Read the groups of a folder's images from a CSV file with the columns file and group.

    Each file is a path relative to the folder of the CSV file. An image that is not listed is a
    group of its own.

    Returns:
        The group of each file; None if there is no CSV file.

    Raises:
        ForetuneError: the file cannot be read, lacks a column, or lists a file that is missing.
    """
    if not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise ForetuneError(f"{path}: not a readable CSV file ({error})") from None
    for number, row in enumerate(rows, start=2):
        if not row.get("file") or not row.get("group"):
            raise ForetuneError(f"{path}: line {number}: needs a value for file and for group")
        if not (path.parent / row["file"]).is_file():
            raise ForetuneError(f"{path}: line {number}: there is no file {row['file']}")
    return {str(Path(row["file"])): row["group"] for row in rows}
