"""Measures of a task from its zero-shot embeddings.

All are pure functions of images X (N, d) and texts T (C, d), rows of unit length, and labels
y (N,) in 0..C-1. They are in `alignment` (IIMM and its terms), `clustering`, `separation` and
`discriminants`; `task` has the register.

Add one by writing a function under `@measure`, here or in a module that is imported here: it
appears in every table and plot.
"""

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
from foretune.measures.class_statistics import ALL, SUMS
from foretune.measures.registry import MATRIX, MEASURES
from foretune.measures.task import Task, compute_measure
from foretune.measures.uncertainty import estimate_uncertainty


def compute_measures(
    images: np.ndarray, texts: np.ndarray, labels: np.ndarray, sources: tuple = ()
) -> dict[str, float]:
    """Every measure that is on by default, of arrays; see the module's docstring.

    Raises ForetuneError for unequal lengths or widths, a label outside 0..C-1, a zero vector or
    a value that is not finite; the three last name the row.
    """
    task = Task(ArraySource(images, texts, labels), sample=len(images), sources=sources)
    return {
        name: compute_measure(each, task).value for name, each in MEASURES.items() if each.default
    }


def choose_measures(also: tuple = (), without: tuple = ()) -> list[str]:
    """Names of the measures that are on: those on by default, with and without some."""
    on = {name for name, each in MEASURES.items() if each.default} | set(also)
    return [name for name in MEASURES if name in on - set(without)]


def measure_task(
    source: EmbeddingSource,
    seed: int,
    *,
    also: tuple = (),
    without: tuple = (),
    sample: int = 10_000,
    bootstrap: int = 200,
    sources: tuple = (),
    classes: list[str] | None = None,
) -> dict:
    """The measures of a source, as they stand in a task's JSON file.

    They are those that are on by default, `also` some and `without` some.

    `n`; `measures` name -> value, None where undefined; `details` name -> interval, curve (see
    `uncertainty`), variants and notes; `notes` about the task. sample: the most images that a
    measure sees that must see all at once. bootstrap: number of subsets for the intervals, 0 for
    none. sources: labels' embeddings for EMMS. classes: names, for the notes.

    Raises ForetuneError, which names the source's files where it has some, and the row.
    """
    chosen = [MEASURES[name] for name in choose_measures(also, without)]
    extent = SUMS if all(each.inputs == SUMS for each in chosen) else ALL
    shards = None if bootstrap else 1
    task = Task(source, extent, sample, seed, shards, sources, keep=extent == ALL)
    try:
        s = task.statistics
    except ForetuneError as error:
        raise ForetuneError(f"{getattr(source, 'name', 'embeddings')}: {error}") from None
    values = {each.name: compute_measure(each, task) for each in chosen}
    doubts = estimate_uncertainty(task, chosen, values, bootstrap) if bootstrap else {}
    details = {}
    for each in chosen:
        found, doubt = values[each.name], doubts.get(each.name, {})
        if each.inputs == MATRIX and not task.whole:
            found.notes.append(f"of a random sample of {sample} of {task.n} images")
        details[each.name] = {
            "interval": doubt.get("interval"),
            "curve": doubt.get("curve", []),
            "variants": {name: finite_or_none(value) for name, value in found.variants.items()},
            "notes": found.notes + doubt.get("notes", []),
        }
    notes = []
    absent = np.flatnonzero(s.counts == 0)
    if len(absent):
        named = [classes[i] if classes else str(i) for i in absent[:10]]
        more = ", ..." if len(absent) > 10 else ""
        noun = "class has" if len(absent) == 1 else "classes have"
        notes.append(f"{len(absent)} {noun} no image: {', '.join(named)}{more}")
    return {
        "n": task.n,
        "measures": {name: finite_or_none(each.value) for name, each in values.items()},
        "details": details,
        "notes": notes,
    }


def finite_or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return value if np.isfinite(value) else None
