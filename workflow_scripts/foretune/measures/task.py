"""A task as its measures see it, and the register of measures."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from foretune.encoders.streams import ArraySource, EmbeddingSource
from foretune.measures.class_statistics import (
    ALL,
    EXTENT_FIELDS,
    ClassStatistics,
    ShardStatistics,
    accumulate_statistics,
    choose_shard_count,
    iterate_pieces,
)
from foretune.measures.registry import MATRIX, Measure, MeasureResult, UndefinedMeasure

CHUNK_ROWS = 2048  # rows of a further pass, which allocates each: 8 MB of float64 at a width of 512


class Task:
    """Images, texts and labels of a source, gathered on first use in as few passes as it takes.

    sample: the most images that are held in memory, and that measures of kind MATRIX see; a
    larger task has a random sample of that many, drawn by `seed`. keep: hold them from the first
    pass on, which saves later passes.
    """

    def __init__(
        self,
        source: EmbeddingSource,
        extent: str = ALL,
        sample: int = 10_000,
        seed: int = 0,
        shards: int | None = 1,
        sources: tuple = (),
        keep: bool = False,
    ):
        self.source, self.extent, self.seed, self.sources = source, extent, seed, sources
        self.limit, self.keep, self.n = sample, keep, source.n
        classes, width = np.shape(source.texts)
        self.shard_count = shards or choose_shard_count(self.n, classes, width, extent)

    @cached_property
    def _gathered(self) -> tuple[ShardStatistics, np.ndarray, np.ndarray]:
        keep = self._sampled if self.keep else None
        return accumulate_statistics(
            self.source, self.extent, self.shard_count, self.seed, keep, self.sources
        )

    @cached_property
    def _sampled(self) -> np.ndarray:
        if self.whole:
            return np.arange(self.n)
        rng = np.random.default_rng([self.seed, 1])
        return np.sort(rng.choice(self.n, self.limit, replace=False))

    @cached_property
    def _memory(self) -> tuple[np.ndarray, np.ndarray]:
        if self.keep:
            return self._gathered[1:]
        start, kept = 0, []
        for block, labels in self.blocks():
            low, high = np.searchsorted(self._sampled, (start, start + len(block)))
            inside = self._sampled[low:high] - start
            kept.append((block[inside].astype(np.float64), labels[inside]))
            start += len(block)
        rows, labels = zip(*kept, strict=True)
        return np.concatenate(rows), np.concatenate(labels)

    @property
    def whole(self) -> bool:
        """Whether the images in memory are all of them."""
        return self.n <= self.limit

    @property
    def shards(self) -> ShardStatistics:
        return self._gathered[0]

    @property
    def statistics(self) -> ClassStatistics:
        return self.shards.whole

    @property
    def texts(self) -> np.ndarray:
        """(C, d), unit rows."""
        return self.statistics.texts

    @property
    def rows(self) -> np.ndarray:
        """The images in memory: (N, d), or (sample, d) of a larger task; unit rows, float64."""
        return self._memory[0]

    @property
    def labels(self) -> np.ndarray:
        """Labels of `rows`."""
        return self._memory[1]

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Another pass over all images: unit rows and their labels, by the block."""
        if self.whole and self.keep:
            yield from ArraySource(self.rows, self.texts, self.labels).blocks()
            return
        for block, labels in iterate_pieces(self.source, CHUNK_ROWS):
            yield block * (1 / np.sqrt(np.vecdot(block, block)))[:, None], labels

    def by_class(self) -> Iterator[np.ndarray]:
        """The images in memory class by class, in order: unit rows of the present classes."""
        direct = self.whole and isinstance(self.source, ArraySource)
        given = self.source if direct else ArraySource(self.rows, self.texts, self.labels)
        labels = np.asarray(given.labels)
        order = np.argsort(labels, kind="stable")
        ends = np.flatnonzero(np.diff(labels[order], append=len(self.texts))) + 1
        for rows in np.split(order, ends[:-1]):
            block = given.images[rows].astype(np.float64, copy=False)  # a copy already
            block *= (1 / np.sqrt(np.vecdot(block, block)))[:, None]
            yield block

    def of(self, rows: np.ndarray) -> "Task":
        """The task of some of the images in memory, by their numbers."""
        source = ArraySource(self.rows[rows], self.texts, self.labels[rows])
        return Task(source, self.extent, len(rows), self.seed, 1, self.sources, keep=True)

    @cached_property
    def in_memory(self) -> "Task":
        return self if self.whole else self.of(np.arange(len(self.rows)))


def compute_measure(each: Measure, given: Task | ClassStatistics) -> MeasureResult:
    """A measure of a task, or of statistics that suffice for it; NaN with a note if undefined."""
    if isinstance(given, Task):
        if each.inputs in EXTENT_FIELDS:
            given = given.statistics
        elif each.inputs == MATRIX:
            given = given.in_memory
    try:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            result = each.function(given)
    except UndefinedMeasure as why:
        return MeasureResult(np.nan, {}, [f"undefined: {why}"])
    if not isinstance(result, MeasureResult):
        result = MeasureResult(result)
    result.value = float(result.value)
    result.variants = {name: float(value) for name, value in result.variants.items()}
    if not np.isfinite(result.value) and not result.notes:
        result.notes.append("undefined: the computation has no finite result for this input")
    return result
