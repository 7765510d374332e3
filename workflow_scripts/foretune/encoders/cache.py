"""Embedding caches: Parquet files of vectors that state what they were made from.

Vectors are stored raw, as the tower gives them, in a fixed-size list column of float32.
The metadata names the weights, the preprocessing and the dataset, and readers refuse a
cache that does not match what they ask for.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from foretune.core.errors import ForetuneError
from foretune.core.parquet import read_metadata, write_parquet


@dataclass
class Embeddings:
    """vectors (N, d) float32, read-only, not of unit length; the other columns; provenance."""

    vectors: np.ndarray
    columns: dict[str, np.ndarray]
    metadata: dict


def write_embeddings(path: Path | str, vectors: np.ndarray, columns: dict, metadata: dict) -> None:
    """Write vectors (N, d) with one value of each column a row.

    Raises ForetuneError, which names the row, where a vector is not finite.
    """
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise ForetuneError(f"{path}: row {broken[0]} ({len(broken)} in all) is not finite")
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    write_embedding_table(pa.table({**columns, "embedding": column}), path, metadata)


def write_embedding_table(table: pa.Table, path: Path | str, metadata: dict) -> None:
    # One chunk a file is what lets a reader map it without a copy; a dictionary of vectors' values
    # makes reading several times slower.
    rows = max(1, len(table))
    write_parquet(table, path, metadata, rows, compression="none", dictionary=False)


def check_metadata(path: Path | str, **expected) -> dict:
    """A cache's metadata. Raises ForetuneError where it has not these values."""
    metadata = read_metadata(path)
    for key, value in expected.items():
        if metadata.get(key) != value:
            raise ForetuneError(
                f"{path}: made from another {key} ({metadata.get(key)!r}, expected {value!r}); "
                "delete it and run again"
            )
    return metadata


def read_embeddings(path: Path | str, **expected) -> Embeddings:
    """Read a cache, its vectors without a copy out of Arrow's memory.

    expected: metadata that must have these values (`weights=`, `dataset=`, ...).
    Raises ForetuneError where the file is not such a cache, or was made from something else.
    """
    metadata = check_metadata(path, **expected)
    table = pq.read_table(path)
    if "embedding" not in table.column_names:
        raise ForetuneError(f"{path}: has no column named embedding")
    column = table["embedding"]
    # combine_chunks copies, even a single one; ours is written as one.
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
    """The images of one split and the captions' embeddings, of one dataset by one model."""
    images = read_embeddings(Path(folder) / f"{split}.parquet", dataset=dataset_digest)
    texts = read_embeddings(
        Path(folder) / "text.parquet", dataset=dataset_digest, weights=images.metadata["weights"]
    )
    return images, texts


def normalize_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to unit length, in float64. Raises ForetuneError for a zero vector."""
    vectors = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        raise ForetuneError(f"row {int(np.argmin(lengths))} is a zero vector: it has no direction")
    return vectors / lengths
