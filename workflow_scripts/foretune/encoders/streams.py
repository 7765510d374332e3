"""Embeddings on disk as sources of measures: read by the block, whatever wrote them.

Images are a Parquet file with a list column or a .npy matrix; texts too; labels are a column of
the images' file, or a file of their own. Of a Parquet file the column `embedding` is read, or the
only list column; of labels the column `label`, or the only column of whole numbers.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from foretune.core.errors import ForetuneError
from foretune.encoders.cache import check_metadata

STREAM_BLOCK = 8192  # rows that a source gives at once: 32 MB of float64 at a width of 512


class EmbeddingSource(Protocol):
    """Images that can be read again and again: see `ArraySource` and `FileSource`."""

    n: int
    texts: np.ndarray

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Vectors (rows, d) of any floating type, as stored, and their labels (rows,)."""


@dataclass(frozen=True)
class ArraySource:
    """A source in memory: images (N, d), texts (C, d), labels (N,), none of them changed.

    Raises ForetuneError for unequal lengths or widths, and for no image.
    """

    images: np.ndarray
    texts: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        if (
            self.images.ndim != 2
            or self.texts.ndim != 2
            or self.images.shape[1] != self.texts.shape[1]
        ):
            raise ForetuneError(
                f"images {self.images.shape} and texts {self.texts.shape} are not of one width"
            )
        if np.shape(self.labels) != (len(self.images),) or len(self.images) == 0:
            raise ForetuneError(
                f"{len(self.images)} images need as many labels, not {np.shape(self.labels)}"
            )
        if np.asarray(self.labels).dtype.kind not in "iu":
            raise ForetuneError("labels must be whole numbers, the rows of the texts")

    @property
    def n(self) -> int:
        return len(self.images)

    def blocks(self):
        labels = np.asarray(self.labels)
        for start in range(0, self.n, STREAM_BLOCK):
            yield self.images[start : start + STREAM_BLOCK], labels[start : start + STREAM_BLOCK]


def is_vector_type(kind: pa.DataType) -> bool:
    lists = pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list
    return any(test(kind) for test in lists) and pa.types.is_floating(kind.value_type)


def find_column(file: pq.ParquetFile, path: Path, name: str, test, what: str) -> str:
    fitting = [field.name for field in file.schema_arrow if test(field.type)]
    if name in fitting or len(fitting) == 1:
        return name if name in fitting else fitting[0]
    found = f"has {', '.join(fitting)}" if fitting else "has none"
    raise ForetuneError(f"{path}: needs a column {name} of {what} ({found})")


def open_parquet(path: Path) -> pq.ParquetFile:
    try:
        # Small reads: a column chunk of a large row group is not held at once.
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    except FileNotFoundError:
        raise ForetuneError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise ForetuneError(f"{path}: not a readable Parquet file ({error})") from None


def open_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ForetuneError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        raise ForetuneError(f"{path}: not a readable .npy file ({error})") from None


def to_matrix(column: pa.Array, path: Path, width: int | None, row: int) -> np.ndarray:
    """(rows, d) of a list column, without a copy where Arrow lets us."""
    if column.null_count or column.flatten().null_count:
        raise ForetuneError(f"{path}: a vector is missing in rows {row} to {row + len(column) - 1}")
    flat = column.flatten().to_numpy(zero_copy_only=False)
    if not pa.types.is_fixed_size_list(column.type):
        lengths = np.diff(column.offsets.to_numpy())
        odd = np.flatnonzero(lengths != (width or lengths[0]))
        if len(odd):
            raise ForetuneError(
                f"{path}: row {row + odd[0]} has {lengths[odd[0]]} values, others {lengths[0]}"
            )
    return flat.reshape(len(column), -1)


def read_matrix(path: Path | str) -> np.ndarray:
    """All vectors (rows, d) of a .npy or Parquet file. Raises ForetuneError, naming the file."""
    path = Path(path)
    if path.suffix == ".npy":
        matrix = open_npy(path)
        if matrix.ndim != 2 or matrix.dtype.kind != "f" or not matrix.size:
            shape = f"{matrix.dtype} of shape {matrix.shape}"
            raise ForetuneError(f"{path}: needs a matrix of floating numbers, not {shape}")
        return matrix
    file = open_parquet(path)
    name = find_column(file, path, "embedding", is_vector_type, "lists of floating numbers")
    column = file.read(columns=[name])[name].combine_chunks()
    if not len(column):
        raise ForetuneError(f"{path}: has no rows")
    return to_matrix(column, path, None, 0)


def read_labels(path: Path | str) -> np.ndarray:
    """Labels (rows,) of a .npy or Parquet file. Raises ForetuneError, naming the file."""
    path = Path(path)
    if path.suffix == ".npy":
        labels = np.asarray(open_npy(path))
    else:
        file = open_parquet(path)
        name = find_column(file, path, "label", pa.types.is_integer, "whole numbers")
        labels = file.read(columns=[name])[name].to_numpy()
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        shape = f"{labels.dtype} of shape {labels.shape}"
        raise ForetuneError(f"{path}: needs a row of whole numbers, not {shape}")
    return labels.astype(np.int64)


def prefetch(items: Iterator) -> Iterator:
    """The same items, the next one read in a thread while one is worked on."""
    with ThreadPoolExecutor(1) as pool:
        item = pool.submit(next, items, None)
        while (found := item.result()) is not None:
            item = pool.submit(next, items, None)
            yield found


def open_embedding_cache(
    folder: Path, split: str, dataset_digest: str
) -> tuple["FileSource", dict]:
    """A split's embeddings by one model as a source, and the images' provenance.

    Raises ForetuneError where a cache was made from something else.
    """
    images, texts = Path(folder) / f"{split}.parquet", Path(folder) / "text.parquet"
    metadata = check_metadata(images, dataset=dataset_digest)
    check_metadata(texts, dataset=dataset_digest, weights=metadata["weights"])
    return FileSource(images, texts), metadata


class FileSource:
    """A source of files: images, texts, and labels where the images' file has none.

    Raises ForetuneError, which names the file, for a file that is none of the kinds above, and
    for widths or lengths that differ.
    """

    def __init__(self, images: Path | str, texts: Path | str, labels: Path | str | None = None):
        self.path, self.labels = Path(images), None
        self.name = ", ".join(str(path) for path in (images, texts, labels) if path)
        self.texts = read_matrix(texts)
        if labels is not None:
            self.labels = read_labels(labels)
        if self.path.suffix == ".npy":
            self.matrix = read_matrix(self.path)
            self.n, width = self.matrix.shape
            if self.labels is None:
                raise ForetuneError(f"{self.path}: has no labels; give a file of labels, too")
        else:
            file = open_parquet(self.path)
            what = "lists of floating numbers"
            self.columns = [find_column(file, self.path, "embedding", is_vector_type, what)]
            if self.labels is None:
                test = pa.types.is_integer
                self.columns.append(find_column(file, self.path, "label", test, "whole numbers"))
            self.matrix, self.n = None, file.metadata.num_rows
            width = None
            if self.n:
                first = next(file.iter_batches(1, columns=self.columns[:1]))
                width = len(first[self.columns[0]].flatten())
        if self.n == 0:
            raise ForetuneError(f"{self.path}: has no rows")
        if width != self.texts.shape[1]:
            raise ForetuneError(
                f"{images}: {width} dimensions, but {texts} has {self.texts.shape[1]}"
            )
        if self.labels is not None and len(self.labels) != self.n:
            raise ForetuneError(
                f"{labels}: {len(self.labels)} labels for {self.n} rows of {images}"
            )

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Vectors and labels, about BLOCK rows at a time."""
        if self.matrix is not None:
            for start in range(0, self.n, STREAM_BLOCK):
                stop = start + STREAM_BLOCK
                yield np.asarray(self.matrix[start:stop]), self.labels[start:stop]
            return
        yield from prefetch(self.parquet_blocks())

    def parquet_blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        start = 0
        for batch in open_parquet(self.path).iter_batches(STREAM_BLOCK, columns=self.columns):
            block = to_matrix(batch[self.columns[0]], self.path, self.texts.shape[1], start)
            stop = start + len(block)
            if self.labels is not None:
                labels = self.labels[start:stop]
            else:
                labels = batch[self.columns[1]].to_numpy(zero_copy_only=False)
                if labels.dtype.kind == "f":
                    row = start + int(np.flatnonzero(np.isnan(labels))[0])
                    raise ForetuneError(f"{self.path}: row {row} has no label")
            yield block, labels
            start = stop
