"""How far a measure is to be trusted: an interval over images, and how few images suffice.

Both come from random subsets of a task's images, drawn without replacement. A random half of the
images differs from the whole as much as the whole does from the population: the standard
deviation of a measure over halves is its standard error (the delete-half jackknife; Shao and Wu
1989). Unlike a resample with replacement, a half has no image twice, which pairs of images and
discriminants in many dimensions would take for structure.

What grows with the number of images by itself varies less over halves than over wholes: the
interval of NCTI, whose nuclear norm grows as the root of N, is 1.4 times too narrow for that.

Sums over a half are those of half the shards, so that measures of class statistics are never
computed from images again. Smaller subsets give the curve.
"""

from collections.abc import Iterator

import numpy as np

from foretune.measures.class_statistics import (
    ALL,
    EXTENT_FIELDS,
    SCATTER,
    SUMS,
    VARIANCES,
    ClassStatistics,
)
from foretune.measures.registry import MATRIX, ROWS, Measure
from foretune.measures.task import Task, compute_measure

NORMAL_QUANTILE = 1.959964  # two-sided 95%
MIN_SUBSETS = 8  # shards, and subsets on which a measure must be defined


def subset_sizes(parts: int) -> list[int]:
    """Halves, quarters, ... of `parts`, a power of two."""
    return [parts >> k for k in range(1, parts.bit_length())]


def draw_subsets(
    task: Task, parts: int, size: int, count: int, kinds: set[str], rng: np.random.Generator
) -> Iterator[Task | ClassStatistics]:
    """`count` random subsets of size / parts of the images, as these kinds of measure take them."""
    if kinds <= EXTENT_FIELDS.keys():
        weights = np.zeros((count, parts))
        weights[:, :size] = 1
        yield from task.shards.subsets(rng.permuted(weights, axis=1), *kinds)
        return
    n = len(task.rows)
    for _ in range(count):
        yield task.of(np.sort(rng.choice(n, max(1, n * size // parts), replace=False)))


def estimate_uncertainty(
    task: Task, measures: list[Measure], values: dict, replicates: int
) -> dict:
    """Per measure: `interval` [low, high] or None, `curve`, and `notes`.

    values: name -> Value over all images. The interval is the value and 1.96 standard errors to
    each side. A point of the curve has n, the mean over subsets of n images, and their root mean
    square deviation from the value over all. replicates: number of halves for measures of class
    sums; the others, and the curve's smaller subsets, get a share of it.
    """
    result = {each.name: {"interval": None, "curve": [], "notes": []} for each in measures}
    rng = np.random.default_rng([task.seed, 2])
    groups = [({SUMS}, 1, 4)] + [({kind}, 8, 40) for kind in (VARIANCES, SCATTER, ALL)]
    groups.append(({ROWS, MATRIX}, 8, 40))
    for kinds, share, smaller in groups:
        chosen = [each for each in measures if each.inputs in kinds]
        chosen = [each for each in chosen if np.isfinite(values[each.name].value)]
        if not chosen:
            continue
        in_shards = kinds <= EXTENT_FIELDS.keys()
        parts = task.shard_count if in_shards else 64
        n = task.n if in_shards else len(task.rows)
        while parts > 1 and n < 4 * parts:
            parts //= 2
        if parts < MIN_SUBSETS:
            for each in chosen:
                result[each.name]["notes"].append(explain_no_interval(n))
            continue
        for size in subset_sizes(parts):
            half = 2 * size == parts
            count = max(MIN_SUBSETS + 4 if half else 4, replicates // (share if half else smaller))
            subsets = draw_subsets(task, parts, size, count, kinds, rng)
            found = np.array([[compute_measure(m, each).value for m in chosen] for each in subsets])
            for each, drawn in zip(chosen, found.T, strict=True):
                add_point(result[each.name], values[each.name].value, drawn, n * size // parts)
                if half:
                    add_interval(result[each.name], values[each.name].value, drawn, each, task)
    for each in result.values():
        each["curve"].reverse()
    return result


def explain_no_interval(n: int) -> str:
    if n < 4 * MIN_SUBSETS:
        return f"{n} images are too few for an interval"
    return "no interval: the class statistics are too large to be kept in shards"


def add_point(result: dict, value: float, drawn: np.ndarray, n: int) -> None:
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) >= 4:
        off = np.sqrt(np.mean((drawn - value) ** 2))
        result["curve"].append({"n": n, "mean": float(drawn.mean()), "deviation": float(off)})


def add_interval(result: dict, value: float, drawn: np.ndarray, each: Measure, task: Task) -> None:
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < MIN_SUBSETS:
        result["notes"].append("no interval: undefined on most halves of the images")
        return
    error = drawn.std(ddof=1)
    if each.inputs == ROWS:  # the halves are of the images in memory, the value is of all
        error *= np.sqrt(len(task.rows) / task.n)
    result["interval"] = [
        float(value - NORMAL_QUANTILE * error),
        float(value + NORMAL_QUANTILE * error),
    ]
