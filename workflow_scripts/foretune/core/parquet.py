"""Parquet files whose metadata says what they were made from."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from foretune.core.errors import ForetuneError
from foretune.core.files import atomic_write

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
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except FileNotFoundError:
        raise ForetuneError(f"{path}: no such file") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ForetuneError(f"{path}: not a readable Parquet file ({error})") from None
    if METADATA_KEY not in metadata:
        raise ForetuneError(f"{path}: not written by foretune (no provenance in its metadata)")
    return json.loads(metadata[METADATA_KEY])
