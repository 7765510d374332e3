"""Sources on this machine: Parquet files, image folders, and tables of image files."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from foretune.core.errors import ForetuneError
from foretune.core.parquet import read_metadata
from foretune.data.sources.base import (
    DEFAULT_CAPTION,
    IMAGE_SUFFIXES,
    NOT_STATED,
    TRAIN_AND_TEST,
    ImageRows,
    ImageSource,
    format_class_names,
    make_file_rows,
)


def read_parquet_source(path: Path, wanted: tuple[str, ...] = TRAIN_AND_TEST) -> ImageSource:
    """A Parquet file with the columns image, label and split, and its facts as metadata."""
    facts, columns = read_metadata(path), pq.read_schema(path).names
    absent = [key for key in ("classes", "caption", "licence", "source") if key not in facts]
    absent += [name for name in ("image", "label", "split") if name not in columns]
    if absent:
        raise ForetuneError(f"{path}: not a dataset: it lacks {', '.join(absent)}")
    splits = pq.read_table(path, columns=["split"])["split"].to_pylist()
    for number, split in enumerate(splits):
        if split not in TRAIN_AND_TEST:
            raise ForetuneError(f"{path}: row {number}: split {split!r} is not train or test")

    def read(split: str) -> Iterator[tuple[str, bytes, int]]:
        number = 0
        for batch in pq.ParquetFile(path).iter_batches(1024, columns=["image", "label", "split"]):
            for row in batch.to_pylist():
                if row["split"] == split:
                    yield f"{number:06d}", row["image"], row["label"]
                number += 1

    rows = {s: ImageRows(splits.count(s), lambda s=s: read(s)) for s in wanted}
    described = (facts[key] for key in ("classes", "caption", "licence", "source"))
    return ImageSource(*described, rows)


def read_folder_source(folder: Path, wanted: tuple[str, ...] = TRAIN_AND_TEST) -> ImageSource:
    """A folder with one subfolder a class, or with `train/` and `test/` that have them."""
    if not folder.is_dir():
        raise ForetuneError(f"{folder}: no such folder")
    own_test = (folder / "test").is_dir()
    if own_test and "train" not in wanted:
        folder, own_test = folder / "test", False
    if (folder / "train").is_dir() and not own_test:
        raise ForetuneError(f"{folder}: has train/ but no test/; without both, give class folders")
    if own_test and (folder / "val").is_dir():
        print(f"{folder}: val/ is not used; validation is a tenth of train/", flush=True)
    top = folder / "train" if own_test else folder
    classes = list_class_folders(top)
    if len(classes) < 2:
        raise ForetuneError(f"{top}: needs one subfolder a class, at least two; found {classes}")

    def rows_of(root: Path) -> ImageRows:
        unknown = set(list_class_folders(root)) - set(classes)
        if unknown:
            raise ForetuneError(f"{root}: classes that {top} does not have: {sorted(unknown)}")
        return make_file_rows(folder, [
            (file, label)
            for label, name in enumerate(classes)
            for file in sorted((root / name).rglob("*"))
            if file.suffix.lower() in IMAGE_SUFFIXES
            and file.is_file()
            and not file.name.startswith(".")
        ])  # fmt: skip

    rows = {s: rows_of(folder / s) for s in wanted} if own_test else {"all": rows_of(folder)}
    return ImageSource(
        format_class_names(classes), DEFAULT_CAPTION, NOT_STATED, f"folder {folder}", rows
    )


def list_class_folders(folder: Path) -> list[str]:
    """The visible subfolders' names, in order. Raises ForetuneError where one is not UTF-8."""
    if not folder.is_dir():
        raise ForetuneError(f"{folder}: no such folder")
    paths = [*folder.rglob("*")]
    for path in paths:
        if not str(path).isprintable():
            raise ForetuneError(f"{str(path)!r}: rename it; its name has unprintable characters")
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def read_table_source(spec: dict, wanted: tuple[str, ...] = TRAIN_AND_TEST) -> ImageSource:
    """A CSV file with a row an image, as WILDS and many others have them.

    spec: `table`, the file; `image`, where a row's image lies from the table's folder on, in
    which {row} is the row's number from 0 and {column} a column's value; `label`, the column of
    class names; `splits`, what rows a split has, as pandas' `query` takes it. Classes are those
    of the whole table, in alphabetical order, so that every split of it has the same.
    """
    import pandas as pd

    path = Path(spec["table"])
    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        come = f"; it comes from {spec['source']}" if "source" in spec else ""
        raise ForetuneError(f"{path}: no such file{come}; tables are not fetched") from None
    except (ValueError, OSError) as error:
        raise ForetuneError(f"{path}: not a readable CSV file ({error})") from None
    if spec["label"] not in table:
        raise ForetuneError(f"{path}: has no column {spec['label']}, but {', '.join(table)}")
    names = sorted(table[spec["label"]].astype(str).unique())
    number = {name: label for label, name in enumerate(names)}
    rows = {}
    for split in wanted:
        if split not in spec["splits"]:
            raise ForetuneError(f"{path}: splits: says nothing of {split}")
        query = spec["splits"][split]
        try:
            chosen = table.query(query)
            files = [
                (path.parent / spec["image"].format(row=row, **values),
                 number[str(values[spec["label"]])])
                for row, values in zip(chosen.index, chosen.to_dict("records"), strict=True)
            ]  # fmt: skip
        except Exception as error:  # of pandas' expressions, many kinds
            raise ForetuneError(f"{path}: {query!r}, {spec['image']!r}: {error!r}") from None
        rows[split] = make_file_rows(path.parent, files)
    return ImageSource(
        format_class_names(names), DEFAULT_CAPTION, NOT_STATED, f"table {path}", rows
    )
