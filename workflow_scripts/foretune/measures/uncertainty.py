"""The uncertainty of a measure: an interval, and how its value depends on the sample size.

Both come from random subsets of a task's images, drawn without replacement. A random half of the
images differs from the whole as much as the whole does from the population: the standard
deviation of a measure over halves is its standard error (the delete-half jackknife; Shao and Wu
1989). Unlike a resample with replacement, a half contains no image twice. Pairs of images and
discriminants in many dimensions would take such duplicates for structure.

A measure that grows with the number of images varies less over halves than over wholes. For that
reason the interval of NCTI, whose nuclear norm grows as the root of N, is 1.4 times too narrow.

The sums over a half are those of half the shards, so that measures of class statistics need no
further pass over the images. Smaller subsets give the curve.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from foretune.measures.class_statistics import (
    ALL,
    EXTENT_FIELDS,
    SCATTER,
    SUMS,
    VARIANCES,
    ClassStatistics,
)
from foretune.measures.registry import MATRIX, ROWS, Measure, MeasureResult
from foretune.measures.task import Task, compute_measure

NORMAL_QUANTILE = 1.959964  # two-sided 95%
MIN_SUBSETS = 8  # shards, and subsets on which a measure must be defined
MIN_CURVE_SUBSETS = 4  # subsets of a point of the curve on which a measure must be defined
ROW_PARTS = 64  # parts that the rows in memory are divided into, at most


@dataclass
class Uncertainty:
    """The spread of a measure over random subsets of the images.

    interval: [low, high], the value plus and minus 1.96 standard errors; None if it is unknown.
    curve: points with `n`, the `mean` over subsets of n images, and `deviation`, the root mean
        square difference of the subsets' values from the value of all images. n ascends.
    """

    interval: list[float] | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Group(NamedTuple):
    """Measures that share their random subsets, and how many subsets they get.

    `replicates` is divided by `half_divisor` for halves and by `smaller_divisor` for smaller
    subsets, since measures of more than class sums cost more.
    """

    inputs: set[str]
    half_divisor: int
    smaller_divisor: int


_GROUPS = [
    _Group({SUMS}, 1, 4),
    *(_Group({extent}, 8, 40) for extent in (VARIANCES, SCATTER, ALL)),
    _Group({ROWS, MATRIX}, 8, 40),
]


def subset_sizes(parts: int) -> list[int]:
    """Return the sizes of halves, quarters, ... of `parts`, a power of two."""
    return [parts >> k for k in range(1, parts.bit_length())]


def draw_subsets(
    task: Task, parts: int, size: int, count: int, inputs: set[str], rng: np.random.Generator
) -> Iterator[Task | ClassStatistics]:
    """Yield `count` random subsets of size / parts of the images, as `inputs` need them."""
    if inputs <= EXTENT_FIELDS.keys():
        weights = np.zeros((count, parts))
        weights[:, :size] = 1
        yield from task.shards.subsets(rng.permuted(weights, axis=1), *inputs)
        return
    n = len(task.rows)
    for _ in range(count):
        yield task.select(np.sort(rng.choice(n, max(1, n * size // parts), replace=False)))


def estimate_uncertainty(
    task: Task, measures: list[Measure], results: dict[str, MeasureResult], replicates: int
) -> dict[str, Uncertainty]:
    """Return the uncertainty of each measure, by name.

    Args:
        results: by name, the measures of all images.
        replicates: number of halves for measures of class sums. Other measures, and the smaller
            subsets of the curve, get a fraction of it.
    """
    uncertainties = {measure.name: Uncertainty() for measure in measures}
    rng = np.random.default_rng([task.seed, 2])
    for group in _GROUPS:
        chosen = [measure for measure in measures if measure.inputs in group.inputs]
        chosen = [measure for measure in chosen if np.isfinite(results[measure.name].value)]
        if not chosen:
            continue
        in_shards = group.inputs <= EXTENT_FIELDS.keys()
        parts = task.shard_count if in_shards else ROW_PARTS
        n = task.n if in_shards else len(task.rows)
        while parts > 1 and n < 4 * parts:
            parts //= 2
        if parts < MIN_SUBSETS:
            for measure in chosen:
                uncertainties[measure.name].notes.append(explain_no_interval(n))
            continue
        for size in subset_sizes(parts):
            half = 2 * size == parts
            if half:
                count = max(MIN_SUBSETS + 4, replicates // group.half_divisor)
            else:
                count = max(MIN_CURVE_SUBSETS, replicates // group.smaller_divisor)
            subsets = draw_subsets(task, parts, size, count, group.inputs, rng)
            drawn = np.array(
                [[compute_measure(measure, subset).value for measure in chosen]
                 for subset in subsets]
            )  # fmt: skip
            for measure, values in zip(chosen, drawn.T, strict=True):
                uncertainty, value = uncertainties[measure.name], results[measure.name].value
                values = values[np.isfinite(values)]
                add_point(uncertainty, value, values, n * size // parts)
                if half:
                    add_interval(uncertainty, value, values, measure, task)
    for uncertainty in uncertainties.values():
        uncertainty.curve.reverse()
    return uncertainties


def explain_no_interval(n: int) -> str:
    """Return a note why n images have no interval."""
    if n < 4 * MIN_SUBSETS:
        return f"{n} images are too few for an interval"
    return "no interval: the class statistics are too large to be kept in shards"


def add_point(uncertainty: Uncertainty, value: float, drawn: np.ndarray, n: int) -> None:
    """Add a point to the curve, from the finite values `drawn` of subsets of n images."""
    if len(drawn) >= MIN_CURVE_SUBSETS:
        deviation = np.sqrt(np.mean((drawn - value) ** 2))
        uncertainty.curve.append(
            {"n": n, "mean": float(drawn.mean()), "deviation": float(deviation)}
        )


def add_interval(
    uncertainty: Uncertainty, value: float, drawn: np.ndarray, measure: Measure, task: Task
) -> None:
    """Set the interval about `value`, from the finite values `drawn` of halves of the images."""
    if len(drawn) < MIN_SUBSETS:
        uncertainty.notes.append("no interval: undefined on most halves of the images")
        return
    error = drawn.std(ddof=1)
    if measure.inputs == ROWS:  # the halves are of the images in memory, the value is of all
        error *= np.sqrt(len(task.rows) / task.n)
    uncertainty.interval = [
        float(value - NORMAL_QUANTILE * error),
        float(value + NORMAL_QUANTILE * error),
    ]
