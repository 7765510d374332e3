"""Sources of embeddings, in memory or in files, that are read block by block.

The files may come from foretune or from elsewhere. Images and texts are each a Parquet file with a
list column or a .npy matrix. Labels are a column of the images' Parquet file, or a file of their
own. In a Parquet file, vectors are read from the column `embedding` or else from the only list
column, and labels from the column `label` or else from the only column of whole numbers.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from foretune.core.errors import ForetuneError
from foretune.core.parquet import explain_parquet_errors
from foretune.encoders.cache import check_metadata

Item = TypeVar("Item")

STREAM_BLOCK = 8192  # rows per block: 32 MB of float64 at a width of 512
VECTORS, LABELS = "lists of floating numbers", "whole numbers"  # as error messages name them


class EmbeddingSource(Protocol):
    """Embeddings of n images that can be read repeatedly, and those of C texts (C, d)."""

    @property
    def n(self) -> int: ...

    @property
    def texts(self) -> np.ndarray: ...

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield vectors (rows, d), of the floating type they are stored in, and labels (rows,)."""


@dataclass(frozen=True)
class ArraySource:
    """A source in memory: images (N, d), texts (C, d) and labels (N,), which stay unchanged.

    Raises ForetuneError if lengths or widths differ, if there is no image, or if the labels are
    not whole numbers.
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
                f"images {self.images.shape} and texts {self.texts.shape} must be matrices of "
                "one width"
            )
        if np.shape(self.labels) != (len(self.images),) or len(self.images) == 0:
            raise ForetuneError(
                f"{len(self.images)} images need as many labels, not an array of shape "
                f"{np.shape(self.labels)}"
            )
        if np.asarray(self.labels).dtype.kind not in "iu":
            raise ForetuneError("labels must be whole numbers, the rows of the texts")

    @property
    def n(self) -> int:
        return len(self.images)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        labels = np.asarray(self.labels)
        for start in range(0, self.n, STREAM_BLOCK):
            yield self.images[start : start + STREAM_BLOCK], labels[start : start + STREAM_BLOCK]


def is_vector_type(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds lists of floating numbers."""
    lists = pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list
    return any(is_list(kind) for is_list in lists) and pa.types.is_floating(kind.value_type)


def find_vector_column(file: pq.ParquetFile, path: Path) -> str:
    """Return the name of the column of vectors; errors as `find_column`."""
    return find_column(file, path, "embedding", is_vector_type, VECTORS)


def find_label_column(file: pq.ParquetFile, path: Path) -> str:
    """Return the name of the column of labels; errors as `find_column`."""
    return find_column(file, path, "label", pa.types.is_integer, LABELS)


def find_column(
    file: pq.ParquetFile, path: Path, name: str, fits: Callable[[pa.DataType], bool], content: str
) -> str:
    """Return `name` if that column fits, or else the only column that fits.

    Raises ForetuneError, which names the path and the content, if there is no such column.
    """
    fitting = [field.name for field in file.schema_arrow if fits(field.type)]
    if name in fitting or len(fitting) == 1:
        return name if name in fitting else fitting[0]
    columns = f"has {', '.join(fitting)}" if fitting else "has none"
    raise ForetuneError(f"{path}: needs a column {name} of {content} ({columns})")


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file for small reads. Raises ForetuneError if it cannot be read."""
    with explain_parquet_errors(path):
        # Small reads keep the column chunks of a large row group out of memory.
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)


def open_npy(path: Path) -> np.ndarray:
    """Map a .npy file into memory. Raises ForetuneError if it cannot be read."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ForetuneError(f"{path}: no such file") from None
    except Exception as error:  # numpy parses the header by Python's parser, which has many kinds
        raise ForetuneError(f"{path}: not a readable .npy file ({error})") from None


def to_matrix(column: pa.Array, path: Path, width: int | None, row: int) -> np.ndarray:
    """Return a list column as a matrix (rows, d), without a copy if Arrow allows it.

    width: the expected d; None takes that of the first vector. row: the number of the first row,
    for errors. Raises ForetuneError for a missing vector and for vectors of different lengths.
    """
    if column.null_count or column.flatten().null_count:
        raise ForetuneError(f"{path}: a vector is missing in rows {row} to {row + len(column) - 1}")
    flat = column.flatten().to_numpy(zero_copy_only=False)
    if not pa.types.is_fixed_size_list(column.type):
        lengths = np.diff(column.offsets.to_numpy())
        expected = width or lengths[0]
        different = np.flatnonzero(lengths != expected)
        if len(different):
            first = different[0]
            raise ForetuneError(
                f"{path}: row {row + first} has {lengths[first]} values instead of {expected}"
            )
    return flat.reshape(len(column), -1)


def read_matrix(path: Path | str) -> np.ndarray:
    """Read all vectors (rows, d) of a .npy or Parquet file.

    Raises ForetuneError, which names the file, if it holds no such matrix.
    """
    path = Path(path)
    if path.suffix == ".npy":
        matrix = open_npy(path)
        if matrix.ndim != 2 or matrix.dtype.kind != "f" or not matrix.size:
            shape = f"{matrix.dtype} of shape {matrix.shape}"
            raise ForetuneError(f"{path}: needs a matrix of floating numbers, not {shape}")
        return matrix
    file = open_parquet(path)
    name = find_vector_column(file, path)
    with explain_parquet_errors(path):
        column = file.read(columns=[name])[name].combine_chunks()
    if not len(column):
        raise ForetuneError(f"{path}: has no rows")
    return to_matrix(column, path, None, 0)


def read_labels(path: Path | str) -> np.ndarray:
    """Read all labels (rows,) of a .npy or Parquet file, as int64.

    Raises ForetuneError, which names the file, if it holds no whole numbers.
    """
    path = Path(path)
    if path.suffix == ".npy":
        labels = np.asarray(open_npy(path))
    else:
        file = open_parquet(path)
        name = find_label_column(file, path)
        with explain_parquet_errors(path):
            labels = file.read(columns=[name])[name].to_numpy()
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        shape = f"{labels.dtype} of shape {labels.shape}"
        raise ForetuneError(f"{path}: needs one dimension of whole numbers, not {shape}")
    return labels.astype(np.int64)


def prefetch(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items, none of which is None, and read the next one in a thread meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, items, None)
        while (item := future.result()) is not None:
            future = pool.submit(next, items, None)
            yield item


def open_embedding_cache(
    folder: Path, split: str, dataset_digest: str
) -> tuple["FileSource", dict]:
    """Open one model's embeddings of a split; return the source and the images' metadata.

    Raises ForetuneError if a cache was made from another dataset or other weights.
    """
    images, texts = Path(folder) / f"{split}.parquet", Path(folder) / "text.parquet"
    metadata = check_metadata(images, dataset=dataset_digest)
    check_metadata(texts, dataset=dataset_digest, weights=metadata["weights"])
    return FileSource(images, texts), metadata


class FileSource:
    """A source of files: images, texts, and labels unless the images' file has a column of them.

    Raises ForetuneError, which names the file, if one is not of the kinds that the module
    describes, or if widths or lengths differ.
    """

    def __init__(self, images: Path | str, texts: Path | str, labels: Path | str | None = None):
        self.path = Path(images)
        self.name = ", ".join(str(path) for path in (images, texts, labels) if path)
        self.texts = read_matrix(texts)
        self.labels = None if labels is None else read_labels(labels)
        self.matrix: np.ndarray | None = None
        if self.path.suffix == ".npy":
            self.matrix = read_matrix(self.path)
            self.n, width = self.matrix.shape
            if self.labels is None:
                raise ForetuneError(f"{self.path}: has no labels; give a file of labels, too")
        else:
            width = self._open_parquet()
        if width != self.texts.shape[1]:
            raise ForetuneError(
                f"{images}: {width} dimensions, but {texts} has {self.texts.shape[1]}"
            )
        if self.labels is not None and len(self.labels) != self.n:
            raise ForetuneError(
                f"{labels}: {len(self.labels)} labels for {self.n} rows of {images}"
            )

    def _open_parquet(self) -> int:
        """Set `n` and the columns to read from the images' Parquet file; return the width."""
        file = open_parquet(self.path)
        self.columns = [find_vector_column(file, self.path)]
        if self.labels is None:
            self.columns.append(find_label_column(file, self.path))
        self.n = file.metadata.num_rows
        if self.n == 0:
            raise ForetuneError(f"{self.path}: has no rows")
        with explain_parquet_errors(self.path):
            first = next(file.iter_batches(1, columns=self.columns[:1]))
        return len(first[self.columns[0]].flatten())

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield vectors and labels, at most STREAM_BLOCK rows at a time."""
        if self.matrix is None:
            yield from prefetch(self.parquet_blocks())
        elif self.labels is not None:  # a matrix always has a file of labels
            for start in range(0, self.n, STREAM_BLOCK):
                stop = start + STREAM_BLOCK
                yield np.asarray(self.matrix[start:stop]), self.labels[start:stop]

    def parquet_blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield vectors and labels of the Parquet file.

        Raises ForetuneError, which names the rows, for a missing vector or label.
        """
        start = 0
        with explain_parquet_errors(self.path):
            for batch in open_parquet(self.path).iter_batches(STREAM_BLOCK, columns=self.columns):
                block = to_matrix(batch[self.columns[0]], self.path, self.texts.shape[1], start)
                stop = start + len(block)
                if self.labels is not None:
                    labels = self.labels[start:stop]
                else:
                    labels = batch[self.columns[1]].to_numpy(zero_copy_only=False)
                    if labels.dtype.kind == "f":  # Arrow converts missing whole numbers to NaN
                        row = start + int(np.flatnonzero(np.isnan(labels))[0])
                        raise ForetuneError(f"{self.path}: row {row} has no label")
                yield block, labels
                start = stop
