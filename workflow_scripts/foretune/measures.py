"""Measures of a task from its zero-shot embeddings.

All are pure functions of images X (N, d) and texts T (C, d), rows of unit length, and labels
y (N,) in 0..C-1. They are in `alignment` (IIMM and its terms), `clustering`, `separation` and
`discriminants`; `task` has the register.

Add one by writing a function under `@measure`, here or in a module that is imported here: it
appears in every table and plot.
"""

import numpy as np

from foretune import alignment, clustering, discriminants, separation  # noqa: F401, they register
from foretune.class_statistics import Arrays
from foretune.task import MEASURES, Task, value_of


def compute_measures(
    images: np.ndarray, texts: np.ndarray, labels: np.ndarray, sources: tuple = ()
) -> dict[str, float]:
    """Every measure that is on by default, of arrays; see the module's docstring.

    Raises ForetuneError for unequal lengths or widths, a label outside 0..C-1, a zero vector or
    a value that is not finite; the three last name the row.
    """
    task = Task(Arrays(images, texts, labels), sample=len(images), sources=sources)
    return {name: value_of(each, task).value for name, each in MEASURES.items() if each.default}
