"""Read tables of many evaluations, and write a study's tables as Parquet and as CSV."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from foretune.core.files import atomic_write
from foretune.core.parquet import add_metadata, read_table

ROW_GROUP = 65536  # rows of a Parquet file that are read together


def read_tables(paths: list[Path], schema: pa.Schema) -> pd.DataFrame:
    """Concatenate Parquet files of one schema, whose types hold even if a file has only nulls.

    A column that a file of an older version lacks is unknown.
    """
    tables = [schema.empty_table(), *map(read_table, paths)]
    return pa.concat_tables(tables, promote_options="default").to_pandas()


def sort_by_run(paths: list[Path], key: list[str]) -> Iterator[pa.Table]:
    """Yield the rows of Parquet files in the order of `key`, which begins with model and method.

    Each file holds one model and method. All files together can have too many rows for memory.
    """

    def get_run(path: Path) -> list[tuple]:
        first = read_table(path, columns=["model", "method"])[:1].to_pylist()
        return [(row["model"], row["method"]) for row in first]

    for path in sorted(paths, key=get_run):
        yield read_table(path).sort_by([(name, "ascending") for name in key])


def write_tables(frame: pd.DataFrame, output: Path, metadata: dict) -> None:
    """Write a table as Parquet to `output`, and as CSV next to it."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    stream_tables([table], table.schema, output, metadata)


def stream_tables(
    tables: Iterable[pa.Table], schema: pa.Schema, output: Path, metadata: dict
) -> None:
    """Write the rows of tables of one schema like `write_tables`, one table after the other."""
    with (
        atomic_write(output) as rows,
        atomic_write(output.with_suffix(".csv")) as lines,
        pq.ParquetWriter(rows, schema, compression="zstd") as parquet,
        csv.CSVWriter(lines, schema) as text,
    ):
        add_metadata(parquet, metadata)
        for table in tables:
            parquet.write_table(table, row_group_size=ROW_GROUP)
            text.write_table(table)
