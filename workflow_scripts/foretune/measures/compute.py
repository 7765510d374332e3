"""Computes all measures of a task from its zero-shot embeddings.

A measure is a pure function of images X (N, d) and texts T (C, d), with rows of unit length, and
labels y (N,) in 0..C-1. The modules imported below define and register the measures; `custom` is
the place for your own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretune.core.errors import ForetuneError
from foretune.encoders.streams import ArraySource, EmbeddingSource
from foretune.measures import (  # noqa: F401, importing a module registers its measures
    alignment,
    clustering,
    custom,
    discriminant,
    transferability,
)
from foretune.measures.class_statistics import ALL, SUMS, ClassStatistics
from foretune.measures.registry import MATRIX, MEASURES
from foretune.measures.task import Task, TaskOptions, compute_measure
from foretune.measures.uncertainty import Uncertainty, estimate_uncertainty


@dataclass(frozen=True)
class MeasureOptions:
    """The config's options under `measures` that `measure_task` uses.

    also, without: names of measures to add to those that are on by default, and to leave out.
    sample: the most images that a measure sees that needs all images at once.
    bootstrap: number of random halves of the images for the intervals; 0 for no intervals.
    """

    also: Sequence[str] = ()
    without: Sequence[str] = ()
    sample: int = 10_000
    bootstrap: int = 200


def compute_measures(
    images: np.ndarray,
    texts: np.ndarray,
    labels: np.ndarray,
    label_embeddings: tuple[np.ndarray, ...] = (),
) -> dict[str, float]:
    """Return the value of every measure that is on by default; NaN if it is undefined.

    Args:
        images, texts, labels: (N, d), (C, d) and (N,); the vectors need not be of unit length.
        label_embeddings: for EMMS (see ClassStatistics).

    Raises:
        ForetuneError: unequal lengths or widths, a label outside 0..C-1, a zero vector or a value
            that is not finite. The last three errors name the row.
    """
    options = TaskOptions(sample=len(images))
    task = Task(ArraySource(images, texts, labels), ALL, options, label_embeddings)
    return {
        name: compute_measure(measure, task).value
        for name, measure in MEASURES.items()
        if measure.default
    }


def choose_measures(also: Sequence[str] = (), without: Sequence[str] = ()) -> list[str]:
    """Return the names of the default measures, plus `also`, minus `without`."""
    on = {name for name, measure in MEASURES.items() if measure.default} | set(also)
    return [name for name in MEASURES if name in on - set(without)]


def measure_task(
    source: EmbeddingSource,
    seed: int,
    options: MeasureOptions | None = None,
    label_embeddings: tuple[np.ndarray, ...] = (),
    classes: list[str] | None = None,
) -> dict[str, Any]:
    """Compute the measures of a source, as they are written to the task's JSON file.

    Args:
        seed: for random shards, samples and subsets.
        label_embeddings: for EMMS (see ClassStatistics).
        classes: class names, for the notes.

    Returns:
        `n`, the number of images; `measures`, the values by name, None if undefined; `details`,
        by name the interval, the curve (see Uncertainty), the variants and the notes; and
        `notes` about the task.

    Raises:
        ForetuneError: the embeddings are not valid; the message names the source's files, if it
            has any, and the row.
    """
    options = options or MeasureOptions()
    chosen = [MEASURES[name] for name in choose_measures(options.also, options.without)]
    extent = SUMS if all(measure.inputs == SUMS for measure in chosen) else ALL
    shards = None if options.bootstrap else 1
    task_options = TaskOptions(options.sample, seed, shards, keep=extent == ALL)
    task = Task(source, extent, task_options, label_embeddings)
    try:
        statistics = task.statistics
    except ForetuneError as error:
        raise ForetuneError(f"{getattr(source, 'name', 'embeddings')}: {error}") from None
    results = {measure.name: compute_measure(measure, task) for measure in chosen}
    uncertainties = {}
    if options.bootstrap:
        uncertainties = estimate_uncertainty(task, chosen, results, options.bootstrap)
    details = {}
    for measure in chosen:
        result = results[measure.name]
        uncertainty = uncertainties.get(measure.name, Uncertainty())
        if measure.inputs == MATRIX and not task.whole:
            result.notes.append(f"of a random sample of {options.sample} of {task.n} images")
        details[measure.name] = {
            "interval": uncertainty.interval,
            "curve": uncertainty.curve,
            "variants": {name: finite_or_none(value) for name, value in result.variants.items()},
            "notes": result.notes + uncertainty.notes,
        }
    return {
        "n": task.n,
        "measures": {name: finite_or_none(result.value) for name, result in results.items()},
        "details": details,
        "notes": note_absent_classes(statistics, classes),
    }


def note_absent_classes(statistics: ClassStatistics, classes: list[str] | None) -> list[str]:
    """Return a note that names the classes without an image, or no note."""
    absent = np.flatnonzero(statistics.counts == 0)
    if not len(absent):
        return []
    names = [classes[i] if classes else str(i) for i in absent[:10]]
    more = ", ..." if len(absent) > 10 else ""
    verb = "class has" if len(absent) == 1 else "classes have"
    return [f"{len(absent)} {verb} no image: {', '.join(names)}{more}"]


def finite_or_none(value: float) -> float | None:
    """Return a finite value as it is and None for any other, since JSON has no NaN."""
    return value if np.isfinite(value) else None
