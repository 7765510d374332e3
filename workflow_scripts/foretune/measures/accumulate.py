"""Accumulates class statistics in one pass over the images.

Rows are scaled to unit length as they are read, and moments are taken about the first block's
mean.

Sums are accumulated in float64. A block of a float16 cache is multiplied in float32, which is
twice as fast and adds an error of 1e-7 to values that are themselves rounded to 5e-4.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from scipy import sparse
from scipy.linalg import blas

from foretune.core.errors import ForetuneError
from foretune.encoders.cache import normalize_rows
from foretune.encoders.streams import STREAM_BLOCK, EmbeddingSource
from foretune.measures.class_statistics import (
    ALL,
    EXTENT_FIELDS,
    ClassStatistics,
    ShardStatistics,
)

PIECE_ROWS = 1024  # so few rows stay in a processor's cache through all steps of `_Sums.add`
SHARDS_BYTES = 128 << 20


def check_row_norms(block: np.ndarray, labels: np.ndarray, classes: int, start: int) -> np.ndarray:
    """Check the labels and rows of a block, and return the rows' lengths.

    Raises ForetuneError for a label outside 0..classes-1, a zero vector and a value that is not
    finite. It names the row, counted from `start`.
    """
    bad_labels = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(bad_labels):
        row = bad_labels[0]
        raise ForetuneError(f"row {start + row}: label {labels[row]} is not in 0..{classes - 1}")
    lengths = np.sqrt(np.vecdot(block, block))
    bad_rows = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad_rows):
        row = bad_rows[0]
        if np.isfinite(block[row]).all() and not lengths[row]:
            raise ForetuneError(f"row {start + row} is a zero vector: it has no direction")
        raise ForetuneError(f"row {start + row} has a value that is not finite")
    return lengths


def normalize_texts(texts: np.ndarray) -> np.ndarray:
    """Return texts (C, d) scaled to unit length, in float64.

    Raises ForetuneError, which names the text, for a zero vector or a value that is not finite.
    """
    try:
        check_row_norms(texts := np.asarray(texts, np.float64), np.zeros(len(texts), int), 1, 0)
    except ForetuneError as error:
        raise ForetuneError(f"texts: {error}") from None
    return normalize_rows(texts)


def to_working_precision(block: np.ndarray) -> np.ndarray:
    """Return the block in the type of its products: float32 for float16, otherwise float64."""
    working = np.float32 if block.dtype == np.float16 else np.float64
    return block.astype(working, copy=False)


def choose_shard_count(n: int, classes: int, width: int, extent: str) -> int:
    """Choose the number of shards for n images: a power of two up to 64.

    A shard has at least 4 images. There are more than 8 shards only if their statistics take at
    most SHARDS_BYTES and a block has enough rows of each shard for fast products. 8 shards, which
    an interval needs, may take up to four times that memory.
    """
    squares, moment = ("squares" in EXTENT_FIELDS[extent]), ("moment" in EXTENT_FIELDS[extent])
    size = 8 * classes * width * (1 + squares) + 8 * width**2 * moment
    count = 64
    while count > 1 and (
        n < 4 * count
        or count * size > 4 * SHARDS_BYTES
        or (count > 8 and count * size > SHARDS_BYTES)
        or (count > 8 and moment and count * width > 2 * STREAM_BLOCK)
    ):
        count //= 2
    return count


def iterate_pieces(source: EmbeddingSource, rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield vectors and labels, at most `rows` rows at a time, in their working precision."""
    for stored, labels in source.blocks():
        for start in range(0, len(stored), rows):
            yield to_working_precision(stored[start : start + rows]), labels[start : start + rows]


def add_outer_products(moment: np.ndarray, rows: np.ndarray) -> None:
    """Add the sum of the outer products of `rows` (n, d) to the lower triangle of `moment`.

    moment: (d, d) float64, changed in place.
    """
    if rows.dtype == np.float64:
        # BLAS adds in place; in its order of axes this is the upper triangle.
        blas.dsyrk(1.0, rows.T, beta=1.0, c=moment.T, overwrite_c=True)
    else:
        moment += blas.ssyrk(1.0, rows.T).T


def symmetrize(moment: np.ndarray) -> np.ndarray:
    """Return (..., d, d) with the lower triangle mirrored to the upper one, which must be 0."""
    return moment + np.tril(moment, -1).swapaxes(-1, -2)


def one_hot(labels: np.ndarray, classes: int, weights: np.ndarray | None = None):
    """Return a sparse (classes, N) matrix whose product with rows (N, d) sums them per class.

    weights: (N,), the factor of each row; 1 by default.
    """
    weights = np.ones(len(labels), np.float32) if weights is None else weights
    return sparse.csc_array((weights, labels, np.arange(len(labels) + 1)), (classes, len(labels)))


class _Sums:
    """The sums over the rows so far, in equal random shards."""

    def __init__(self, texts: np.ndarray, extent: str, shards: int, seed: int):
        self.texts, self.shards = texts, shards
        self.classes, self.width = texts.shape
        self.counts = np.zeros(shards * self.classes, np.int64)
        self.sums = np.zeros((shards * self.classes, self.width))
        self.squares = self.moment = None
        if "squares" in EXTENT_FIELDS[extent]:
            self.squares = np.zeros_like(self.sums)
        if "moment" in EXTENT_FIELDS[extent]:
            self.moment = np.zeros((shards, self.width, self.width))
        self.shift: np.ndarray | None = None
        self.rng = np.random.default_rng(seed)
        self.buffer = np.empty((0, self.width))

    def add(self, block: np.ndarray, labels: np.ndarray, lengths: np.ndarray) -> None:
        """Add rows (n, d) of these lengths, each scaled to unit length."""
        rows = len(block)
        if len(self.buffer) < rows or self.buffer.dtype != block.dtype:
            self.buffer = np.empty((rows, self.width), block.dtype)
        buffer = self.buffer[:rows]
        scale, keys, ends = 1 / lengths, labels, np.array([0, rows])
        if self.shards > 1:
            # Sort the rows by shard, so that the rows of a shard are a slice.
            order = self.rng.permutation(rows)
            shard_numbers = np.arange(rows) * self.shards // rows
            ends = np.searchsorted(shard_numbers, np.arange(self.shards + 1))
            block = np.take(block, order, axis=0, out=buffer, mode="clip")
            scale, keys = scale[order], labels[order] + shard_numbers * self.classes
        # Rows are shifted if a product needs it, or if squares in float32 would lose the digits in
        # which they differ. Otherwise the scale serves as a weight, and nothing is copied.
        if self.moment is not None or (self.squares is not None and block.dtype == np.float32):
            block = np.multiply(block, scale[:, None], out=buffer)
            if self.shift is None:
                self.shift = block.mean(0, dtype=np.float64).astype(block.dtype).astype(np.float64)
            block -= self.shift.astype(block.dtype)
            scale = np.ones_like(scale)
        if self.moment is not None:
            for shard in range(self.shards):
                add_outer_products(self.moment[shard], block[ends[shard] : ends[shard + 1]])
        belongs = one_hot(keys, len(self.counts), scale)
        self.sums += belongs @ block
        self.counts += np.bincount(keys, minlength=len(self.counts))
        if self.squares is not None:
            belongs.data **= 2
            self.squares += belongs @ np.square(block, out=buffer)

    def finish(self, label_embeddings: tuple[np.ndarray, ...]) -> ShardStatistics:
        shape = self.shards, self.classes, self.width
        counts, sums = self.counts.reshape(shape[:2]), self.sums.reshape(shape)
        squares = None if self.squares is None else self.squares.reshape(shape)
        moment = None if self.moment is None else symmetrize(self.moment)
        whole = ClassStatistics(
            self.texts,
            counts.sum(0),
            np.zeros(self.width) if self.shift is None else self.shift,
            sums.sum(0),
            None if squares is None else squares.sum(0),
            None if moment is None else moment.sum(0),
            label_embeddings or (self.texts,),
        )
        return ShardStatistics(whole, counts, sums, squares, moment)


def accumulate_statistics(
    source: EmbeddingSource,
    extent: str = ALL,
    shards: int = 1,
    seed: int = 0,
    keep: np.ndarray | None = None,
    label_embeddings: Iterable[np.ndarray] = (),
) -> tuple[ShardStatistics, np.ndarray, np.ndarray]:
    """Read the images once and return their statistics in equal random shards, and kept rows.

    Args:
        extent: which sums to accumulate; a key of EXTENT_FIELDS.
        keep: ascending numbers of the rows to return too; None for none.
        label_embeddings: see ClassStatistics.

    Returns:
        (statistics, the kept rows scaled to unit length in float64, their labels).

    Raises:
        ForetuneError: a label outside 0..C-1, a zero vector or a value that is not finite, with
            the row; or there is no image.
    """
    sums = _Sums(normalize_texts(source.texts), extent, shards, seed)
    kept, kept_labels = [np.empty((0, sums.width))], [np.empty(0, np.int64)]
    start = 0
    piece_rows = PIECE_ROWS * min(shards, STREAM_BLOCK // PIECE_ROWS)
    for block, labels in iterate_pieces(source, piece_rows):
        lengths = check_row_norms(block, labels, sums.classes, start)
        if keep is not None:
            low, high = np.searchsorted(keep, (start, start + len(block)))
            inside = keep[low:high] - start
            kept.append(block[inside] / lengths[inside, None].astype(float))
            kept_labels.append(labels[inside])
        sums.add(block, labels, lengths)
        start += len(block)
    if start == 0:
        raise ForetuneError("there is no image")
    statistics = sums.finish(tuple(label_embeddings))
    return statistics, np.concatenate(kept), np.concatenate(kept_labels)
