"""Parquet files whose metadata says what they were made from."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from foretune.core.errors import ForetuneError
from foretune.core.files import atomic_write

if TYPE_CHECKING:
    import pandas as pd

METADATA_KEY = b"foretune"


def write_parquet(
    table: pa.Table,
    path: Path | str,
    metadata: dict,
    row_group_size: int = 65536,
    compression: str = "zstd",
    dictionary: bool = True,
) -> None:
    """Write a table atomically, with `metadata` as JSON under the key `foretune` of its footer."""
    merged = {**(table.schema.metadata or {}), METADATA_KEY: json.dumps(metadata, sort_keys=True)}
    with atomic_write(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata(merged),
            temporary,
            compression=compression,
            row_group_size=row_group_size,
            use_dictionary=dictionary,
        )


def add_metadata(writer: pq.ParquetWriter, metadata: dict) -> None:
    """Add `metadata` to the footer of a file that is written in row groups."""
    writer.add_key_value_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def read_metadata(path: Path | str) -> dict:
    """Return the `foretune` metadata of a Parquet file.

    Raises:
        ForetuneError: the file is missing, is not Parquet, or was not written by foretune.
    """
    with explain_parquet_errors(path):
        metadata = pq.read_metadata(path).metadata or {}
        if METADATA_KEY not in metadata:
            raise ForetuneError(f"{path}: not written by foretune (no provenance in its metadata)")
        facts = json.loads(metadata[METADATA_KEY])
    if not isinstance(facts, dict):
        raise ForetuneError(f"{path}: not written by foretune (its metadata is no mapping)")
    return facts


def read_table(path: Path | str, columns: list[str] | None = None) -> pa.Table:
    """Return all or some columns of a Parquet file.

    Raises:
        ForetuneError: the file is missing or damaged, or lacks a column.
    """
    with explain_parquet_errors(path):
        names = pq.read_schema(path).names
        if missing := [name for name in columns or () if name not in names]:
            raise ForetuneError(f"{path}: has no column {', '.join(missing)}")
        table = pq.read_table(path, columns=columns, partitioning=None)
        table.validate(full=True)  # otherwise a damaged text is an error of whoever looks at it
    return table


def read_frame(path: Path | str) -> "pd.DataFrame":
    """Return a Parquet file as a data frame. Raises ForetuneError as `read_table` does."""
    return read_table(path).to_pandas()


@contextmanager
def explain_parquet_errors(path: Path | str) -> Iterator[None]:
    """Raise what PyArrow says of a file as a ForetuneError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise ForetuneError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError, ValueError) as error:  # a ValueError for damaged texts
        reason = " ".join(str(error).split())[:300]
        raise ForetuneError(f"{path}: not a readable Parquet file ({reason})") from None
