"""What a task's measures are computed from: sums over its images, gathered in one pass.

Counts, class sums, class sums of squares and the scatter are additive: those of shards merge to
those of the whole, and a half of the shards is a half of the images. Rows are scaled to unit
length as they are read, and moments are taken about the first block's mean, which is close
enough to the mean of all that nothing cancels when they are centred.

Sums are accumulated in float64. A block of a float16 cache is multiplied in float32, which is
twice as fast and adds 1e-7 to values that are themselves rounded at 5e-4.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.linalg import blas

from foretune.core.errors import ForetuneError
from foretune.encoders.cache import normalize_rows
from foretune.encoders.streams import STREAM_BLOCK, EmbeddingSource

PIECE_ROWS = 1024  # rows that a processor's cache holds through all that is done with them


# What is summed beside counts and class sums, as the fields of Statistics.
SUMS, VARIANCES, SCATTER, ALL = "sums", "variances", "scatter", "all"


EXTENT_FIELDS = {
    SUMS: (),
    VARIANCES: ("squares",),
    SCATTER: ("moment",),
    ALL: ("squares", "moment"),
}
SHARDS_BYTES = 128 << 20


def check_row_norms(block: np.ndarray, labels: np.ndarray, classes: int, start: int) -> np.ndarray:
    """Lengths of a block's rows, all of them positive and finite, its labels in 0..classes-1.

    Raises ForetuneError, which names the row, counted from `start`.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        row = wrong[0]
        raise ForetuneError(f"row {start + row}: label {labels[row]} is not in 0..{classes - 1}")
    lengths = np.sqrt(np.vecdot(block, block))
    wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(wrong):
        row = wrong[0]
        if np.isfinite(block[row]).all() and not lengths[row]:
            raise ForetuneError(f"row {start + row} is a zero vector: it has no direction")
        raise ForetuneError(f"row {start + row} has a value that is not finite")
    return lengths


def normalize_texts(texts: np.ndarray) -> np.ndarray:
    """(C, d) of unit length, float64. Raises ForetuneError, which names the text."""
    try:
        check_row_norms(texts := np.asarray(texts, np.float64), np.zeros(len(texts), int), 1, 0)
    except ForetuneError as error:
        raise ForetuneError(f"texts: {error}") from None
    return normalize_rows(texts)


def to_working_precision(block: np.ndarray) -> np.ndarray:
    """The block in the type that it is multiplied in: float32 for float16, else float64."""
    if block.dtype != np.float16:
        return block.astype(np.float64, copy=False)
    bits = np.ascontiguousarray(block).view(np.int16)
    if (bits & 0x7C00).max(initial=0) == 0x7C00:
        return block.astype(np.float32)  # with an infinity or a NaN, of which an error will tell
    # A half's exponent and fraction, moved to a float's places, are its value times 2^-112; this
    # is exact, and takes a third of the time of NumPy's conversion.
    wide = bits.astype(np.int32)
    wide <<= 13
    wide &= np.int32(-0x70000001)  # of the copies of the sign, only the first
    values = wide.view(np.float32)
    values *= np.float32(2.0**112)
    return values


@dataclass(frozen=True)
class ClassStatistics:
    """Sums over the images of a task, or of a shard of it.

    texts (C, d) of unit length; counts (C,); shift (d,); sums (C, d) of x - shift by class;
    squares (C, d) of (x - shift)^2 by class, and moment (d, d), the sum of the outer products of
    x - shift: None where no measure needs them. `sources`: arrays (C, D) of one width, the
    labels' embeddings that EMMS regresses on; the texts where there are no others.
    """

    texts: np.ndarray
    counts: np.ndarray
    shift: np.ndarray
    sums: np.ndarray
    squares: np.ndarray | None = None
    moment: np.ndarray | None = None
    sources: tuple = ()

    @cached_property
    def n(self) -> int:
        return int(self.counts.sum())

    @cached_property
    def present(self) -> np.ndarray:
        """Indices of the classes that have an image, K of them."""
        return np.flatnonzero(self.counts)

    @cached_property
    def class_sums(self) -> np.ndarray:
        """(C, d): the sum of each class's images."""
        return self.sums + self.counts[:, None] * self.shift

    @cached_property
    def total(self) -> np.ndarray:
        """(d,): the sum of all images."""
        return self.sums.sum(0) + self.n * self.shift

    @cached_property
    def mean(self) -> np.ndarray:
        return self.total / self.n

    @cached_property
    def text_total(self) -> np.ndarray:
        return self.texts.sum(0)

    @cached_property
    def class_means(self) -> np.ndarray:
        """(K, d): means of the present classes, about the mean of all images."""
        means = self.sums[self.present] / self.counts[self.present, None]
        return means - self.sums.sum(0) / self.n

    @cached_property
    def class_variances(self) -> np.ndarray:
        """(K, d): each present class's variance by dimension, divided by its count."""
        counts = self.counts[self.present, None]
        means = self.sums[self.present] / counts
        return np.maximum(self.squares[self.present] / counts - means**2, 0)

    @cached_property
    def variance(self) -> float:
        """Mean over the dimensions of the images' variance."""
        about = self.sums.sum(0) / self.n
        return max((self.squares.sum(0) / self.n - about**2).mean(), 0)

    @cached_property
    def scatter(self) -> np.ndarray:
        """(d, d): the sum of the outer products of x - mean."""
        total = self.sums.sum(0)
        return self.moment - np.outer(total, total) / self.n

    @cached_property
    def between(self) -> np.ndarray:
        """(d, d): the scatter of the class means, each as often as it has images."""
        weighted = self.class_means * np.sqrt(self.counts[self.present, None])
        return weighted.T @ weighted

    def about(self, shift: np.ndarray) -> "ClassStatistics":
        """The same images, with moments about another point."""
        move = self.shift - shift
        counts, total = self.counts[:, None], self.sums.sum(0)
        changes = {"shift": shift, "sums": self.sums + counts * move}
        if self.squares is not None:
            changes["squares"] = self.squares + 2 * move * self.sums + counts * move**2
        if self.moment is not None:
            cross = np.outer(total, move)
            changes["moment"] = self.moment + cross + cross.T + self.n * np.outer(move, move)
        return replace(self, **changes)

    def __add__(self, other: "ClassStatistics") -> "ClassStatistics":
        """The statistics of both sets of images together, of the same task."""
        other = other.about(self.shift)
        both = {"counts": self.counts + other.counts, "sums": self.sums + other.sums}
        for name in ("squares", "moment"):
            pair = getattr(self, name), getattr(other, name)
            both[name] = None if pair[0] is None or pair[1] is None else pair[0] + pair[1]
        return replace(self, **both)


@dataclass(frozen=True)
class ShardStatistics:
    """Statistics of equal random shards of the images: the fields have a first axis of G."""

    whole: ClassStatistics
    counts: np.ndarray
    sums: np.ndarray
    squares: np.ndarray | None
    moment: np.ndarray | None

    def __len__(self) -> int:
        return len(self.counts)

    def subsets(self, weights: np.ndarray, extent: str) -> Iterator[ClassStatistics]:
        """Statistics of the shards with weight 1, one a row of weights (R, G)."""
        fields = ("counts", "sums", *EXTENT_FIELDS[extent])
        flat = {name: getattr(self, name).reshape(len(self), -1) for name in fields}
        # A product for several rows reads the shards once, and is kept small.
        step = max(1, (32 << 20) // (8 * sum(each.shape[1] for each in flat.values())))
        for start in range(0, len(weights), step):
            chosen = weights[start : start + step]
            parts = {
                name: (chosen @ each).reshape(len(chosen), *getattr(self.whole, name).shape)
                for name, each in flat.items()
            }
            for i in range(len(chosen)):
                changes = {name: part[i] for name, part in parts.items()}
                yield replace(self.whole, **{"squares": None, "moment": None} | changes)


def choose_shard_count(n: int, classes: int, width: int, extent: str) -> int:
    """A power of two up to 64, so that a shard has 4 images or more, and all take little memory.

    More than 8 only where their statistics take at most SHARDS_BYTES, and a block has enough rows
    of each for fast products; 8, which an interval needs, up to four times that.
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
    """The blocks of a source by `rows` rows at most, in the type that they are multiplied in."""
    for stored, labels in source.blocks():
        for start in range(0, len(stored), rows):
            yield to_working_precision(stored[start : start + rows]), labels[start : start + rows]


def add_outer_products(moment: np.ndarray, rows: np.ndarray) -> None:
    """Add rows' rows to the lower triangle of a (d, d) float64 matrix, in place."""
    if rows.dtype == np.float64:
        # BLAS adds in place, to what is in its order of axes the upper triangle.
        blas.dsyrk(1.0, rows.T, beta=1.0, c=moment.T, overwrite_c=True)
    else:
        moment += blas.ssyrk(1.0, rows.T).T


def symmetrize(moment: np.ndarray) -> np.ndarray:
    """(..., d, d) with the lower triangle in the upper one's place, too."""
    return moment + np.tril(moment, -1).swapaxes(-1, -2)


def one_hot(labels: np.ndarray, classes: int, weights: np.ndarray | None = None):
    """(classes, N), sparse: times rows (N, d) it sums them by class, each with its weight."""
    weights = np.ones(len(labels), np.float32) if weights is None else weights
    return sparse.csc_array((weights, labels, np.arange(len(labels) + 1)), (classes, len(labels)))


def accumulate_statistics(
    source: EmbeddingSource,
    extent: str = ALL,
    shards: int = 1,
    seed: int = 0,
    keep: np.ndarray | None = None,
    sources: Iterable[np.ndarray] = (),
) -> tuple[ShardStatistics, np.ndarray, np.ndarray]:
    """One pass over the images: their statistics in equal random shards, and some of them.

    keep: ascending row numbers; those rows come back of unit length (float64), with labels.
    Raises ForetuneError, which names the row, for a label outside 0..C-1, a zero vector or a
    value that is not finite.
    """
    texts = normalize_texts(source.texts)
    classes, width = texts.shape
    counts = np.zeros(shards * classes, np.int64)
    sums = np.zeros((shards * classes, width))
    squares = np.zeros_like(sums) if "squares" in EXTENT_FIELDS[extent] else None
    moment = np.zeros((shards, width, width)) if "moment" in EXTENT_FIELDS[extent] else None
    shift, start, buffer = np.zeros(width), 0, np.empty((0, width))
    kept, kept_labels = [np.empty((0, width))], [np.empty(0, np.int64)]
    rng = np.random.default_rng(seed)
    for block, labels in iterate_pieces(
        source, PIECE_ROWS * min(shards, STREAM_BLOCK // PIECE_ROWS)
    ):
        rows = len(block)
        lengths = check_row_norms(block, labels, classes, start)
        if keep is not None:
            low, high = np.searchsorted(keep, (start, start + rows))
            inside = keep[low:high] - start
            kept.append(block[inside] / lengths[inside, None].astype(float))
            kept_labels.append(labels[inside])
        scale, keys, ends = 1 / lengths, labels, (0, rows)
        if len(buffer) < rows or buffer.dtype != block.dtype:
            buffer = np.empty((rows, width), block.dtype)
        if shards > 1:
            # In order of shard, so that each shard's rows are a slice.
            order = rng.permutation(rows)
            parts = np.arange(rows) * shards // rows
            ends = np.searchsorted(parts, np.arange(shards + 1))
            block = np.take(block, order, axis=0, out=buffer[:rows], mode="clip")
            scale, keys = scale[order], labels[order] + parts * classes
        # Rows are moved to the shift where a product needs it, or where squares in float32 would
        # lose what they differ by; else the scale weighs them, and nothing is copied.
        if moment is not None or (squares is not None and block.dtype == np.float32):
            block = np.multiply(block, scale[:, None], out=buffer[:rows])
            if start == 0:
                shift = block.mean(0, dtype=np.float64).astype(block.dtype).astype(np.float64)
            block -= shift.astype(block.dtype)
            scale = np.ones_like(scale)
        if moment is not None:
            for shard in range(shards):
                add_outer_products(moment[shard], block[ends[shard] : ends[shard + 1]])
        belongs = one_hot(keys, shards * classes, scale)
        sums += belongs @ block
        counts += np.bincount(keys, minlength=len(counts))
        if squares is not None:
            belongs.data **= 2
            squares += belongs @ np.square(block, out=buffer[:rows])
        start += rows
    if start == 0:
        raise ForetuneError("there is no image")
    moment = None if moment is None else symmetrize(moment)
    counts, sums = counts.reshape(shards, classes), sums.reshape(shards, classes, width)
    if squares is not None:
        squares = squares.reshape(shards, classes, width)
    whole = ClassStatistics(
        texts,
        counts.sum(0),
        shift,
        sums.sum(0),
        None if squares is None else squares.sum(0),
        None if moment is None else moment.sum(0),
        tuple(sources) or (texts,),
    )
    result = ShardStatistics(whole, counts, sums, squares, moment)
    return result, np.concatenate(kept), np.concatenate(kept_labels)
