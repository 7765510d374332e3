"""Read sources on this machine: Parquet files, image folders, and tables of image files."""

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from foretune.core.entries import SourceSpec
from foretune.core.errors import ForetuneError
from foretune.core.parquet import read_metadata
from foretune.core.untrusted import refuse_outside
from foretune.data.sources.base import (
    DEFAULT_CAPTION,
    IMAGE_SUFFIXES,
    NOT_STATED,
    TRAIN_AND_TEST,
    ImageRow,
    ImageRows,
    ImageSource,
    format_class_names,
    make_file_rows,
)


def read_parquet_source(path: Path, wanted: tuple[str, ...] = TRAIN_AND_TEST) -> ImageSource:
    """Read a Parquet file with the columns image, label and split, and group if there are groups.

    Its `foretune` metadata has the classes, the caption, the licence and the source.
    """
    facts, columns = read_metadata(path), pq.read_schema(path).names
    missing = [key for key in ("classes", "caption", "licence", "source") if key not in facts]
    missing += [name for name in ("image", "label", "split") if name not in columns]
    if missing:
        raise ForetuneError(f"{path}: not a dataset: it lacks {', '.join(missing)}")
    small = [name for name in ("label", "split", "group") if name in columns]
    table = pq.read_table(path, columns=small).to_pydict()
    for number, split in enumerate(table["split"]):
        if split not in TRAIN_AND_TEST:
            raise ForetuneError(f"{path}: row {number}: split {split!r} is not train or test")

    def read(split: str) -> Iterator[ImageRow]:
        number = 0
        for batch in pq.ParquetFile(path).iter_batches(1024, columns=["image", "label", "split"]):
            for row in batch.to_pylist():
                if row["split"] == split:
                    yield ImageRow(f"{number:06d}", row["image"], row["label"])
                number += 1

    def select(column: str, wanted_split: str) -> list:
        pairs = zip(table[column], table["split"], strict=True)
        return [value for value, split in pairs if split == wanted_split]

    rows = {
        split: ImageRows(
            select("label", split),
            partial(read, split),
            [str(group) for group in select("group", split)] if "group" in table else None,
        )
        for split in wanted
    }
    return ImageSource(facts["classes"], facts["caption"], facts["licence"], facts["source"], rows)


def read_folder_source(folder: Path, wanted: tuple[str, ...] = TRAIN_AND_TEST) -> ImageSource:
    """Read a folder with one subfolder per class, or with `train/` and `test/` made up like that.

    If only the test is wanted and there is a `test/`, it is read alone, as an undivided source.
    A file `groups.csv` in the folder may give images their groups, see `read_groups`.

    Raises:
        ForetuneError: the folder is missing or has another layout, or its groups cannot be read.
    """
    if not folder.is_dir():
        raise ForetuneError(f"{folder}: no such folder")
    divided = (folder / "test").is_dir()
    groups, top = read_groups(folder / "groups.csv"), folder
    if divided and "train" not in wanted:
        folder, divided = folder / "test", False
    if (folder / "train").is_dir() and not divided:
        raise ForetuneError(f"{folder}: has train/ but no test/; without both, give class folders")
    if divided and (folder / "val").is_dir():
        print(f"{folder}: val/ is not used; validation is a tenth of train/", flush=True)
    class_root = folder / "train" if divided else folder
    classes = list_class_folders(class_root)
    if len(classes) < 2:
        raise ForetuneError(
            f"{class_root}: needs one subfolder per class, at least two; found {classes}"
        )

    def list_rows(root: Path) -> ImageRows:
        unknown = set(list_class_folders(root)) - set(classes)
        if unknown:
            raise ForetuneError(
                f"{root}: classes that {class_root} does not have: {sorted(unknown)}"
            )
        files = [
            (file, label)
            for label, name in enumerate(classes)
            for file in sorted((root / name).rglob("*"))
            if file.suffix.lower() in IMAGE_SUFFIXES
            and file.is_file()
            and not file.name.startswith(".")
        ]
        if groups is None:
            return make_file_rows(folder, files)
        names = [str(file.relative_to(top)) for file, _ in files]
        return make_file_rows(folder, files, [groups.get(name, name) for name in names])

    if divided:
        rows = {split: list_rows(folder / split) for split in wanted}
    else:
        rows = {"all": list_rows(folder)}
    return ImageSource(
        format_class_names(classes), DEFAULT_CAPTION, NOT_STATED, f"folder {folder}", rows
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


def list_class_folders(folder: Path) -> list[str]:
    """Return the names of the visible subfolders, sorted.

    Raises:
        ForetuneError: the folder is missing, or a path in it has unprintable characters.
    """
    if not folder.is_dir():
        raise ForetuneError(f"{folder}: no such folder")
    for path in folder.rglob("*"):
        if not str(path).isprintable():
            raise ForetuneError(f"{str(path)!r}: rename it; its name has unprintable characters")
    return sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def read_table_source(spec: SourceSpec, wanted: tuple[str, ...] = TRAIN_AND_TEST) -> ImageSource:
    """Read a CSV file with one row per image, as WILDS and many other datasets have.

    The classes are those of the whole table in alphabetical order, so that all splits of a table
    have the same classes.

    Args:
        spec: `table` is the file. `image` is the path of a row's image relative to the table's
            folder, in which {row} is the row's number, counted from 0, and {column} the value of a
            column. `label` is the column of class names. `splits` has a query of pandas for the
            rows of each split, and `group` the column of groups, if there are groups.

    Raises:
        ForetuneError: the table cannot be read, or the entry names columns that it lacks.
    """
    import pandas as pd

    path = Path(spec["table"])
    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        origin = f"; it comes from {spec['source']}" if "source" in spec else ""
        raise ForetuneError(f"{path}: no such file{origin}; tables are not fetched") from None
    except (ValueError, OSError) as error:
        raise ForetuneError(f"{path}: not a readable CSV file ({error})") from None
    for column in (spec["label"], spec.get("group", spec["label"])):
        if column not in table:
            raise ForetuneError(f"{path}: has no column {column}, but {', '.join(table)}")
    names = sorted(table[spec["label"]].astype(str).unique())
    labels = {name: label for label, name in enumerate(names)}
    rows = {}
    for split in wanted:
        if split not in spec["splits"]:
            raise ForetuneError(f"{path}: `splits` does not say which rows are {split}")
        query = spec["splits"][split]
        try:
            chosen = table.query(query)
            files = [
                (path.parent / spec["image"].format(row=row, **values),
                 labels[str(values[spec["label"]])])
                for row, values in zip(chosen.index, chosen.to_dict("records"), strict=True)
            ]  # fmt: skip
        except Exception as error:  # pandas raises many kinds for a wrong query
            raise ForetuneError(f"{path}: {query!r}, {spec['image']!r}: {error!r}") from None
        refuse_outside("", str(path.parent / spec["image"]), [str(file) for file, _ in files])
        groups = chosen[spec["group"]].astype(str).tolist() if "group" in spec else None
        rows[split] = make_file_rows(path.parent, files, groups)
    return ImageSource(
        format_class_names(names), DEFAULT_CAPTION, NOT_STATED, f"table {path}", rows
    )
