"""The grid of a method: its points, and the trials that a search takes from it."""

import itertools
import json
import random
import zlib
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


def get_trial_key(trial: Trial) -> str:
    """Return the trial's hyperparameters as JSON, with sorted keys."""
    return json.dumps({k: v for k, v in trial.items() if k in GRID_KEYS}, sort_keys=True)


def get_part(trial: Trial, parts: int) -> int:
    """Return which of `parts` jobs trains a trial.

    It follows from the trial alone, so that finished trials keep their job when the grid grows. The
    jobs have about equally many trials, and some may have none.
    """
    return zlib.crc32(get_trial_key(trial).encode()) % parts


def list_parts(recipe: Recipe) -> list[int]:
    """Return the parts of a method's search that have a trial."""
    return sorted({get_part(trial, recipe["parts"]) for trial in list_trials(recipe)})


def expand_grid(recipe: Recipe, part: int = 0) -> list[Trial]:
    """Return the trials of one part of a method's search, of `parts` in the recipe."""
    return [trial for trial in list_trials(recipe) if get_part(trial, recipe["parts"]) == part]


def list_trials(recipe: Recipe) -> list[Trial]:
    """Return the trials of a method's search.

    Each trial is a point of the grid. A random search draws `trials` points without replacement.
    """
    trials, search = grid_points(recipe), recipe["search"]
    if search["kind"] == "random":
        drawn = random.Random(search["seed"]).sample(range(len(trials)), search["trials"])
        trials = [trials[i] for i in sorted(drawn)]
    return trials
