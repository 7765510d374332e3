"""Read sources on this machine: Parquet files, image folders, and tables of image files."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from foretune.core.entries import SourceSpec
from foretune.core.errors import ForetuneError
from foretune.core.parquet import read_metadata
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
    """Read a Parquet file with the columns image, label and split.

    Its `foretune` metadata has the classes, the caption, the licence and the source.
    """
    facts, columns = read_metadata(path), pq.read_schema(path).names
    missing = [key for key in ("classes", "caption", "licence", "source") if key not in facts]
    missing += [name for name in ("image", "label", "split") if name not in columns]
    if missing:
        raise ForetuneError(f"{path}: not a dataset: it lacks {', '.join(missing)}")
    splits = pq.read_table(path, columns=["split"])["split"].to_pylist()
    for number, split in enumerate(splits):
        if split not in TRAIN_AND_TEST:
            raise ForetuneError(f"{path}: row {number}: split {split!r} is not train or test")

    def read(split: str) -> Iterator[ImageRow]:
        number = 0
        for batch in pq.ParquetFile(path).iter_batches(1024, columns=["image", "label", "split"]):
            for row in batch.to_pylist():
                if row["split"] == split:
                    yield ImageRow(f"{number:06d}", row["image"], row["label"])
                number += 1

    rows = {split: ImageRows(splits.count(split), partial(read, split)) for split in wanted}
    return ImageSource(facts["classes"], facts["caption"], facts["licence"], facts["source"], rows)


def read_folder_source(folder: Path, wanted: tuple[str, ...] = TRAIN_AND_TEST) -> ImageSource:
    """Read a folder with one subfolder per class, or with `train/` and `test/` made up like that.

    If only the test is wanted and there is a `test/`, it is read alone, as an undivided source.

    Raises:
        ForetuneError: the folder is missing or has another layout.
    """
    if not folder.is_dir():
        raise ForetuneError(f"{folder}: no such folder")
    divided = (folder / "test").is_dir()
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
        return make_file_rows(folder, [
            (file, label)
            for label, name in enumerate(classes)
            for file in sorted((root / name).rglob("*"))
            if file.suffix.lower() in IMAGE_SUFFIXES
            and file.is_file()
            and not file.name.startswith(".")
        ])  # fmt: skip

    if divided:
        rows = {split: list_rows(folder / split) for split in wanted}
    else:
        rows = {"all": list_rows(folder)}
    return ImageSource(
        format_class_names(classes), DEFAULT_CAPTION, NOT_STATED, f"folder {folder}", rows
    )


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
            rows of each split.
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
    if spec["label"] not in table:
        raise ForetuneError(f"{path}: has no column {spec['label']}, but {', '.join(table)}")
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
        rows[split] = make_file_rows(path.parent, files)
    return ImageSource(
        format_class_names(names), DEFAULT_CAPTION, NOT_STATED, f"table {path}", rows
    )
