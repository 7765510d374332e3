"""The grid of a method: its points, and the trials that a search takes from it."""

import itertools
import random
from typing import cast

from foretune.core.entries import Recipe, Trial

# The lists of a recipe; the grid is their product.
GRID_KEYS = ("learning_rate", "weight_decay", "rank", "reduction")


def grid_points(recipe: Recipe) -> list[Trial]:
    """Return all points of a method's grid, numbered in the order of the config's lists."""
    lists = {key: values for key, values in recipe.items() if key in GRID_KEYS}
    names = [name for name in GRID_KEYS if name in lists]
    points = itertools.product(*(cast(list, lists[name]) for name in names))
    return [
        cast(Trial, {"trial": number, **dict(zip(names, point, strict=True))})
        for number, point in enumerate(points)
    ]


def expand_grid(recipe: Recipe, part: int = 0) -> list[Trial]:
    """Return the trials of one part of a method's search.

    Each trial is a point of the grid. A random search draws `trials` points without replacement.
    With `parts: n` in the recipe, part k takes every n-th trial, starting with the k-th.
    """
    trials, search = grid_points(recipe), recipe["search"]
    if search["kind"] == "random":
        drawn = random.Random(search["seed"]).sample(range(len(trials)), search["trials"])
        trials = [trials[i] for i in sorted(drawn)]
    return trials[part :: recipe["parts"]]
