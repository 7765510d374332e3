"""Embedding caches: Parquet files of vectors that record what they were made from.

Vectors are stored raw, as the tower returns them, in a fixed-size list column of float32. The
metadata names the weights, the preprocessing and the dataset. Readers refuse a cache whose
metadata differs from what they expect.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from foretune.core.errors import ForetuneError
from foretune.core.parquet import read_metadata, read_table, write_parquet


@dataclass
class Embeddings:
    """The content of an embedding cache.

    vectors: (N, d) float32, read-only, as the tower returned them and so not of unit length.
    columns: the other columns by name, each (N,).
    metadata: what the vectors were made from.
    """

    vectors: np.ndarray
    columns: dict[str, np.ndarray]
    metadata: dict[str, Any]


def write_embeddings(
    path: Path | str, vectors: np.ndarray, columns: dict[str, Any], metadata: dict[str, Any]
) -> None:
    """Write vectors (N, d) and further columns of N values each.

    Raises ForetuneError, which names the row, if a vector is not finite.
    """
    bad_rows = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad_rows):
        raise ForetuneError(
            f"{path}: row {bad_rows[0]} is not finite ({len(bad_rows)} such rows in all)"
        )
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    write_embedding_table(pa.table({**columns, "embedding": column}), path, metadata)


def write_embedding_table(table: pa.Table, path: Path | str, metadata: dict[str, Any]) -> None:
    """Write a table with a column `embedding` so that it can be read without a copy."""
    # Readers need no copy if the file has one chunk. A dictionary of the vectors' values would
    # make reading several times slower.
    rows = max(1, len(table))
    write_parquet(table, path, metadata, rows, compression="none", dictionary=False)


def check_metadata(path: Path | str, **expected: str) -> dict[str, Any]:
    """Return a cache's metadata. Raises ForetuneError if a value differs from the expected one."""
    metadata = read_metadata(path)
    for key, value in expected.items():
        if metadata.get(key) != value:
            raise ForetuneError(
                f"{path}: made from another {key} ({metadata.get(key)!r}, expected {value!r}); "
                "delete it and run again"
            )
    return metadata


def read_embeddings(path: Path | str, **expected: str) -> Embeddings:
    """Read a cache; its vectors are a view of Arrow's memory, not a copy.

    expected: values that the metadata must have (`weights=`, `dataset=`, ...).

    Raises ForetuneError if the file is not an embedding cache, has a vector that is not finite, or
    was made from something else.
    """
    metadata = check_metadata(path, **expected)
    table = read_table(path)
    if "embedding" not in table.column_names:
        raise ForetuneError(f"{path}: has no column named embedding")
    column = table["embedding"]
    if not pa.types.is_fixed_size_list(column.type) or column.null_count:
        raise ForetuneError(f"{path}: its embeddings are damaged; delete it and run again")
    # combine_chunks copies even a single chunk, which is what write_embeddings writes.
    column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    vectors = column.flatten().to_numpy(zero_copy_only=True)
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors))[0]) // column.type.list_size
        raise ForetuneError(f"{path}: row {row} is not finite")
    columns = {name: table[name].to_numpy() for name in table.column_names if name != "embedding"}
    return Embeddings(vectors.reshape(-1, column.type.list_size), columns, metadata)


def read_task_embeddings(
    folder: Path | str, split: str, dataset_digest: str
) -> tuple[Embeddings, Embeddings]:
    """Read one model's embeddings of a split's images and of the captions.

    Raises ForetuneError if a cache was made from another dataset, or the two from different
    weights.
    """
    images = read_embeddings(Path(folder) / f"{split}.parquet", dataset=dataset_digest)
    texts = read_embeddings(
        Path(folder) / "text.parquet", dataset=dataset_digest, weights=images.metadata["weights"]
    )
    return images, texts


def normalize_rows(vectors: np.ndarray) -> np.ndarray:
    """Return the rows scaled to unit length, in float64. Raises ForetuneError for a zero vector."""
    vectors = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        raise ForetuneError(f"row {int(np.argmin(lengths))} is a zero vector: it has no direction")
    return vectors / lengths
