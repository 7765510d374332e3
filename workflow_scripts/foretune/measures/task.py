"""A task as its measures see it: class statistics, rows in memory, and passes over the images."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from foretune.encoders.streams import ArraySource, EmbeddingSource
from foretune.measures.accumulate import (
    accumulate_statistics,
    choose_shard_count,
    iterate_pieces,
)
from foretune.measures.class_statistics import (
    ALL,
    EXTENT_FIELDS,
    ClassStatistics,
    ShardStatistics,
)
from foretune.measures.registry import MATRIX, Measure, MeasureResult, UndefinedMeasure

CHUNK_ROWS = 2048  # rows of a further pass, which allocates each: 8 MB of float64 at a width of 512


@dataclass(frozen=True)
class TaskOptions:
    """Options for reading a task.

    sample: the most images that are held in memory and that MATRIX measures see. A larger task is
        represented by a random sample of that size.
    seed: for the random shards and the random sample.
    shards: number of random shards of the statistics; None chooses it by the task's size.
    keep: hold the images in memory from the first pass on, which saves later passes.
    """

    sample: int = 10_000
    seed: int = 0
    shards: int | None = 1
    keep: bool = False


class Task:
    """Images, texts and labels of a source, read on first use and in as few passes as possible.

    extent: which class statistics are accumulated (see `class_statistics`).
    label_embeddings: for EMMS (see ClassStatistics).
    """

    def __init__(
        self,
        source: EmbeddingSource,
        extent: str = ALL,
        options: TaskOptions | None = None,
        label_embeddings: tuple[np.ndarray, ...] = (),
    ):
        options = options or TaskOptions()
        self.source, self.extent, self.label_embeddings = source, extent, label_embeddings
        self.limit, self.seed, self.keep = options.sample, options.seed, options.keep
        self.n = source.n
        classes, width = np.shape(source.texts)
        self.shard_count = options.shards or choose_shard_count(self.n, classes, width, extent)

    @cached_property
    def _first_pass(self) -> tuple[ShardStatistics, np.ndarray, np.ndarray]:
        """The statistics and, if `keep` is set, the rows in memory and their labels."""
        keep = self._sampled_rows if self.keep else None
        return accumulate_statistics(
            self.source, self.extent, self.shard_count, self.seed, keep, self.label_embeddings
        )

    @cached_property
    def _sampled_rows(self) -> np.ndarray:
        """Ascending numbers of the rows in memory."""
        if self.whole:
            return np.arange(self.n)
        rng = np.random.default_rng([self.seed, 1])
        return np.sort(rng.choice(self.n, self.limit, replace=False))

    @cached_property
    def _memory(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows in memory and their labels."""
        if self.keep:
            _, kept, kept_labels = self._first_pass
            return kept, kept_labels
        start, rows, labels = 0, [], []
        for block, block_labels in self.blocks():
            low, high = np.searchsorted(self._sampled_rows, (start, start + len(block)))
            inside = self._sampled_rows[low:high] - start
            rows.append(block[inside].astype(np.float64))
            labels.append(block_labels[inside])
            start += len(block)
        return np.concatenate(rows), np.concatenate(labels)

    @property
    def whole(self) -> bool:
        """True if all images fit in memory, so that none is left out of `rows`."""
        return self.n <= self.limit

    @property
    def shards(self) -> ShardStatistics:
        """Statistics of the random shards."""
        return self._first_pass[0]

    @property
    def statistics(self) -> ClassStatistics:
        """Statistics of all images."""
        return self.shards.whole

    @property
    def texts(self) -> np.ndarray:
        """(C, d): texts of unit length."""
        return self.statistics.texts

    @property
    def rows(self) -> np.ndarray:
        """(N, d) float64: the images in memory, of unit length; N = sample for a larger task."""
        return self._memory[0]

    @property
    def labels(self) -> np.ndarray:
        """(N,): labels of `rows`."""
        return self._memory[1]

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield blocks of all images, scaled to unit length, and their labels: another pass."""
        if self.whole and self.keep:
            yield from ArraySource(self.rows, self.texts, self.labels).blocks()
            return
        for block, labels in iterate_pieces(self.source, CHUNK_ROWS):
            yield block * (1 / np.sqrt(np.vecdot(block, block)))[:, None], labels

    def class_blocks(self) -> Iterator[np.ndarray]:
        """Yield the images in memory, of unit length, of each present class in turn."""
        if self.whole and isinstance(self.source, ArraySource):
            arrays = self.source  # saves the pass that `rows` would take
        else:
            arrays = ArraySource(self.rows, self.texts, self.labels)
        labels = np.asarray(arrays.labels)
        order = np.argsort(labels, kind="stable")
        ends = np.flatnonzero(np.diff(labels[order], append=len(self.texts))) + 1
        for rows in np.split(order, ends[:-1]):
            block = arrays.images[rows].astype(np.float64, copy=False)  # indexing made a copy
            block *= (1 / np.sqrt(np.vecdot(block, block)))[:, None]
            yield block

    def select(self, rows: np.ndarray) -> "Task":
        """Return the task of some of the images in memory; `rows` holds their numbers."""
        source = ArraySource(self.rows[rows], self.texts, self.labels[rows])
        options = TaskOptions(len(rows), self.seed, keep=True)
        return Task(source, self.extent, options, self.label_embeddings)

    @cached_property
    def in_memory(self) -> "Task":
        """The task of the images in memory: this one if they are all."""
        return self if self.whole else self.select(np.arange(len(self.rows)))


def compute_measure(measure: Measure, data: Task | ClassStatistics) -> MeasureResult:
    """Compute a measure of a task, or of statistics that suffice for it.

    An undefined measure gets the value NaN and a note that gives the reason.
    """
    if isinstance(data, Task):
        if measure.inputs in EXTENT_FIELDS:
            data = data.statistics
        elif measure.inputs == MATRIX:
            data = data.in_memory
    try:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            result = measure.function(data)
    except UndefinedMeasure as reason:
        return MeasureResult(np.nan, {}, [f"undefined: {reason}"])
    if not isinstance(result, MeasureResult):
        result = MeasureResult(result)
    result.value = float(result.value)
    result.variants = {name: float(value) for name, value in result.variants.items()}
    if not np.isfinite(result.value) and not result.notes:
        result.notes.append("undefined: the computation has no finite result for this input")
    return result
