"""Read a table of image files: a CSV file with one row per image."""

import os
import re
import unicodedata
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING

import numpy as np

from foretune.core.entries import SourceSpec
from foretune.core.errors import ForetuneError
from foretune.core.files import digest_json
from foretune.core.untrusted import refuse_outside
from foretune.data.sources.base import (
    DEFAULT_CAPTION,
    NOT_STATED,
    TRAIN_AND_TEST,
    ImageSource,
    format_class_names,
    join_names,
    make_file_rows,
    make_groups,
    sort_class_names,
)
from foretune.data.sources.listing import check_names

if TYPE_CHECKING:
    import pandas as pd


def read_table_source(spec: SourceSpec, wanted: tuple[str, ...] = TRAIN_AND_TEST) -> ImageSource:
    """Read a CSV file with one row per image, as WILDS and many other datasets have.

    Columns are separated by commas, semicolons or tabs. Blanks after a separator do not count.

    Labels, groups and paths are the texts of the file: `NA` and `0012` stay what they are. Only the
    conditions in `splits` see the numbers and truth values that pandas makes of columns of such.
    The classes are those of the whole table in alphabetical order, and numbers by their value, so
    that all splits of a table have the same classes.

    Args:
        spec: `table` is the file. `image` is the path of a row's image relative to the table's
            folder, in which {column} is the value of a column, and {row} the row's number, counted
            from 0, unless there is a column of this name. `label` is the column of class names.
            `splits` has a query of pandas for the rows of each split, and `group` the column of
            groups, if there are groups.

    Raises:
        ForetuneError: the table cannot be read, the entry names columns that it lacks, or a row
            has no label.
    """
    path, typed, texts = read_table(spec)
    chosen = {split: choose_rows(spec, split, typed) for split in wanted}
    labels = texts[spec["label"]].str.strip()
    counts = Counter(row for rows in chosen.values() for row in rows)
    blank = [row for row in sorted(counts) if not labels[row]]
    if blank:
        rows_text = join_names(str(row) for row in blank)
        raise ForetuneError(f"{path}: no {spec['label']} in row {rows_text} (counted from 0)")
    labels = labels.map(partial(unicodedata.normalize, "NFC"))
    names = sort_class_names(label for label in labels if label)
    check_names(names)
    numbers = {name: label for label, name in enumerate(names)}
    rows = {}
    for split, selected in chosen.items():
        files = [
            (name, numbers[labels[row]])
            for row, name in zip(selected, make_paths(spec, typed, texts, selected), strict=True)
        ]
        check_names([name for name, _ in files])
        refuse_outside(path.parent, spec["image"], [name for name, _ in files])
        groups = make_groups(texts[spec["group"]].iloc[selected]) if "group" in spec else None
        rows[split] = make_file_rows(path.parent, files, groups)
    notes = []
    if both := sum(count > 1 for count in counts.values()):
        notes.append(f"rows of the table that are in train and in test: {both}")
    left_out = Counter({"rows of no split": len(texts) - len(counts)})
    source = f"table {path}"
    return ImageSource(
        format_class_names(names), DEFAULT_CAPTION, NOT_STATED, source, rows, +left_out, notes
    )


def read_table(spec: SourceSpec) -> "tuple[Path, pd.DataFrame, pd.DataFrame]":
    """Return the table's path, its columns with pandas' types, and its columns as texts.

    Columns that pandas takes for texts are the same in both.

    Raises:
        ForetuneError: the table cannot be read or lacks a column.
    """
    import pandas as pd

    path = Path(spec["table"])
    try:
        options = {"sep": find_separator(path), "skipinitialspace": True, "index_col": False}
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # of values without a column
            typed = pd.read_csv(path, low_memory=False, **options)
            warnings.simplefilter("ignore", pd.errors.ParserWarning)  # of empty ones, too
            texts = pd.read_csv(path, dtype=str, keep_default_na=False, **options)
    except pd.errors.ParserWarning:
        raise ForetuneError(
            f"{path}: its rows have more values than the first line has columns; put texts with "
            f"{options['sep']!r} into quotes"
        ) from None
    except FileNotFoundError:
        origin = f"; it comes from {spec['source']}" if "source" in spec else ""
        raise ForetuneError(f"{path}: no such file{origin}; tables are not fetched") from None
    except UnicodeDecodeError:
        raise ForetuneError(f"{path}: is not in UTF-8; save it as CSV in UTF-8") from None
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ForetuneError(f"{path}: not a readable CSV file ({reason})") from None
    texts.columns = typed.columns = texts.columns.str.strip()
    for column in typed:
        if not (pd.api.types.is_numeric_dtype(typed[column]) and typed[column].notna().any()):
            typed[column] = texts[column]
    needed = {spec["label"], *([spec["group"]] if "group" in spec else [])}
    needed |= {name for name in list_fields(spec["image"]) if name != "row"}
    for column in sorted(needed - set(texts)):
        raise ForetuneError(f"{path}: has no column {column}, but {join_names(texts, 30)}")
    return path, typed, texts


def find_separator(path: Path) -> str:
    """Return what separates the columns of a table: comma, semicolon or tab.

    It is the one that the first line has most of. Spreadsheets write semicolons in some countries.
    """
    with open(path, encoding="utf-8") as file:
        header = file.readline()
    return max(",;\t", key=header.count)


def choose_rows(spec: SourceSpec, split: str, typed: "pd.DataFrame") -> list[int]:
    """Return the numbers of the rows that the entry's query selects for a split.

    Raises:
        ForetuneError: there is no query for the split, or pandas cannot evaluate it.
    """
    import pandas as pd

    path = spec["table"]
    if split not in spec["splits"]:
        raise ForetuneError(f"{path}: `splits` does not say which rows are {split}")
    query = spec["splits"][split]
    try:
        # The empty dicts keep a query from reading variables of the program.
        chosen = typed.eval(query, local_dict={}, global_dict={})
    except Exception as error:  # pandas raises many kinds for a wrong query
        raise ForetuneError(
            f"{path}: `splits`: {split}: {query!r} cannot be evaluated ({error}); the columns are "
            f"{join_names(typed)}"
        ) from None
    # pandas would take other values, such as those of a column of 0 and 1, for numbers of rows.
    if not isinstance(chosen, pd.Series) or chosen.dtype != bool or len(chosen) != len(typed):
        raise ForetuneError(
            f"{path}: `splits`: {split}: {query!r} is not true or false for each row; compare the "
            "column, such as `train == 1`"
        )
    return np.flatnonzero(chosen).tolist()


def list_fields(template: str) -> list[str]:
    """Return the names of the columns in a template of paths.

    Raises:
        ForetuneError: the template has an unmatched brace, or more in a brace than a name and a
            format.
    """
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ForetuneError(f"`image`: {template!r} is not a template ({error})") from None
    return fields


def make_paths(
    spec: SourceSpec, typed: "pd.DataFrame", texts: "pd.DataFrame", rows: list[int]
) -> list[str]:
    """Return the path of the image of each row, as the entry's template makes it.

    A field with a format, such as {number:05d}, gets the value with pandas' type.
    """
    parts = list(Formatter().parse(spec["image"]))
    columns = []
    for _, field, style, _ in parts:
        if field is None:
            columns.append([""] * len(rows))
            continue
        if field == "row" and "row" not in texts:
            values = rows
        else:
            values = (typed if style else texts)[field].iloc[rows].tolist()
        try:
            if re.search(r"\d{4}", style or ""):
                raise ValueError("too many characters")
            columns.append([format(value, style or "") for value in values])
        except (ValueError, TypeError) as error:
            raise ForetuneError(
                f"{spec['table']}: `image`: {{{field}:{style}}} does not fit ({error})"
            ) from None
    literals = [literal for literal, *_ in parts]
    return [
        "".join(text for pair in zip(literals, values, strict=True) for text in pair)
        for values in zip(*columns, strict=True)
    ]


def digest_table_files(spec: SourceSpec) -> str:
    """Return a digest of the sizes and times of a table and of all its images, to notice changes.

    Without a readable table, it is that of the error, which the job that reads it will meet.
    """
    path = Path(spec["table"])
    try:
        _, typed, texts = read_table(spec)
        names = make_paths(spec, typed, texts, list(range(len(texts))))
    except ForetuneError as error:
        return digest_json(str(error))
    facts: dict[str, tuple[int, int] | None] = {}
    for name in ["", *dict.fromkeys(names)]:
        try:
            file = os.stat(os.path.join(path.parent, name) if name else path)
        except (OSError, ValueError):
            facts[name] = None
        else:
            facts[name] = file.st_size, file.st_mtime_ns
    return digest_json(facts)
