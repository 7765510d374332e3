"""The grid of a method: its points, and the trials that a search takes from it."""

import itertools
import random

# The lists of a recipe whose product are a method's trials.
GRID_KEYS = ("learning_rate", "weight_decay", "rank", "reduction")


def grid_points(recipe: dict) -> list[dict]:
    """All points of a method's grid, in the order of the config's lists, each with its number."""
    names = [name for name in GRID_KEYS if name in recipe]
    points = itertools.product(*(recipe[name] for name in names))
    return [{"trial": i, **dict(zip(names, point, strict=True))} for i, point in enumerate(points)]


def expand_grid(recipe: dict, part: int = 0) -> list[dict]:
    """The trials of one part of a method's search.

    A trial is a point of the grid; a random search has some of them, drawn without replacement.
    With `parts: n` in the recipe, part k takes every n-th trial from the k-th on.
    """
    trials, search = grid_points(recipe), recipe["search"]
    if search["kind"] == "random":
        drawn = random.Random(search["seed"]).sample(range(len(trials)), search["trials"])
        trials = [trials[i] for i in sorted(drawn)]
    return trials[part :: recipe["parts"]]
