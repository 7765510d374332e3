"""Class statistics: the sums over a task's images that most measures are computed from.

Counts, class sums, class sums of squares and the scatter are additive: the statistics of shards
add up to those of the whole, and half of the shards is half of the images. Moments are taken about
a shift that lies close to the mean of all images, so that centring them later cancels little.

`accumulate` computes them in one pass over the images.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

# The extents of class statistics, each with the fields that it adds to counts and class sums.
SUMS, VARIANCES, SCATTER, ALL = "sums", "variances", "scatter", "all"
EXTENT_FIELDS = {
    SUMS: (),
    VARIANCES: ("squares",),
    SCATTER: ("moment",),
    ALL: ("squares", "moment"),
}
PRODUCT_BYTES = 32 << 20  # of a product that sums several subsets of the shards at once


@dataclass(frozen=True)
class ClassStatistics:
    """Sums over the images of a task, or of a shard of it. Images are scaled to unit length.

    texts: (C, d), unit length, float64.
    counts: (C,), images per class.
    shift: (d,), the point that moments are taken about.
    sums: (C, d), sum of x - shift per class.
    squares: (C, d), sum of (x - shift)^2 per class; None if the extent leaves it out.
    moment: (d, d), sum of the outer products of x - shift; None if the extent leaves it out.
    label_embeddings: arrays (C, D) of one width D, on which EMMS regresses; the texts by default.
    """

    texts: np.ndarray
    counts: np.ndarray
    shift: np.ndarray
    sums: np.ndarray
    squares: np.ndarray | None = None
    moment: np.ndarray | None = None
    label_embeddings: tuple[np.ndarray, ...] = ()

    @cached_property
    def n(self) -> int:
        """Number of images."""
        return int(self.counts.sum())

    @cached_property
    def present(self) -> np.ndarray:
        """(K,): indices of the classes that have an image."""
        return np.flatnonzero(self.counts)

    @cached_property
    def class_sums(self) -> np.ndarray:
        """(C, d): sum of each class's images."""
        return self.sums + self.counts[:, None] * self.shift

    @cached_property
    def total(self) -> np.ndarray:
        """(d,): sum of all images."""
        return self.sums.sum(0) + self.n * self.shift

    @cached_property
    def mean(self) -> np.ndarray:
        """(d,): mean of all images."""
        return self.total / self.n

    @cached_property
    def text_total(self) -> np.ndarray:
        """(d,): sum of all texts."""
        return self.texts.sum(0)

    @cached_property
    def class_means(self) -> np.ndarray:
        """(K, d): means of the present classes, minus the mean of all images."""
        means = self.sums[self.present] / self.counts[self.present, None]
        return means - self.sums.sum(0) / self.n

    @cached_property
    def class_variances(self) -> np.ndarray:
        """(K, d): variance of each present class per dimension, with the divisor n_c."""
        counts = self.counts[self.present, None]
        means = self.sums[self.present] / counts
        return np.maximum(self._require("squares")[self.present] / counts - means**2, 0)

    @cached_property
    def variance(self) -> float:
        """Variance of all images, averaged over the dimensions."""
        shifted_mean = self.sums.sum(0) / self.n
        mean_square = self._require("squares").sum(0) / self.n
        return max((mean_square - shifted_mean**2).mean(), 0)

    @cached_property
    def scatter(self) -> np.ndarray:
        """(d, d): sum of the outer products of x - mean."""
        total = self.sums.sum(0)
        return self._require("moment") - np.outer(total, total) / self.n

    @cached_property
    def between(self) -> np.ndarray:
        """(d, d): scatter of the class means, each weighted by its number of images."""
        weighted = self.class_means * np.sqrt(self.counts[self.present, None])
        return weighted.T @ weighted

    def _require(self, field: str) -> np.ndarray:
        values = getattr(self, field)
        if values is None:
            raise ValueError(f"these class statistics were accumulated without {field}")
        return values

    def shift_to(self, shift: np.ndarray) -> "ClassStatistics":
        """Return the statistics of the same images with moments about another point."""
        move = self.shift - shift
        counts, total = self.counts[:, None], self.sums.sum(0)
        changes: dict[str, Any] = {"shift": shift, "sums": self.sums + counts * move}
        if self.squares is not None:
            changes["squares"] = self.squares + 2 * move * self.sums + counts * move**2
        if self.moment is not None:
            cross = np.outer(total, move)
            changes["moment"] = self.moment + cross + cross.T + self.n * np.outer(move, move)
        return replace(self, **changes)

    def __add__(self, other: "ClassStatistics") -> "ClassStatistics":
        """Return the statistics of two disjoint sets of images of the same task together."""
        other = other.shift_to(self.shift)
        both: dict[str, Any] = {
            "counts": self.counts + other.counts,
            "sums": self.sums + other.sums,
        }
        for name in ("squares", "moment"):
            first, second = getattr(self, name), getattr(other, name)
            both[name] = None if first is None or second is None else first + second
        return replace(self, **both)


@dataclass(frozen=True)
class ShardStatistics:
    """Class statistics of G equal random shards of the images.

    The fields are those of ClassStatistics with a first axis of length G; `whole` holds the
    statistics of all images.
    """

    whole: ClassStatistics
    counts: np.ndarray
    sums: np.ndarray
    squares: np.ndarray | None
    moment: np.ndarray | None

    def __len__(self) -> int:
        return len(self.counts)

    def subsets(self, weights: np.ndarray, extent: str) -> Iterator[ClassStatistics]:
        """Yield the statistics of one subset of the shards per row of `weights`.

        weights: (R, G), 1 for the shards of a subset and 0 for the others.
        """
        fields = ("counts", "sums", *EXTENT_FIELDS[extent])
        flat = {name: getattr(self, name).reshape(len(self), -1) for name in fields}
        # One product for several rows reads the shards once; its size is bounded.
        step = max(1, PRODUCT_BYTES // (8 * sum(values.shape[1] for values in flat.values())))
        for start in range(0, len(weights), step):
            chosen = weights[start : start + step]
            parts = {
                name: (chosen @ values).reshape(len(chosen), *getattr(self.whole, name).shape)
                for name, values in flat.items()
            }
            for i in range(len(chosen)):
                changes = {name: part[i] for name, part in parts.items()}
                yield replace(self.whole, **{"squares": None, "moment": None} | changes)
