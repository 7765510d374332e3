"""Draw the rows of a split at random, by class."""

from collections.abc import Sequence

import numpy as np


def draw_rows(
    labels: Sequence[int], groups: Sequence[str] | None, share: float, least: int, seed: int
) -> np.ndarray:
    """Draw a share of the images of each class at random, and no group in part.

    Args:
        labels: of the N images.
        groups: of the N images; None if each is a group of its own. A group counts for the class
            of its first image.
        share: of each class's groups. The shares of the classes are rounded so that they add up to
            that of all groups, rounded down.
        least: number of groups to draw of each class. One group of a class is always left.

    Returns:
        A mask (N,) of the drawn images.
    """
    names = range(len(labels)) if groups is None else groups
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    units = np.array([numbers[name] for name in names], int)
    first_labels = dict(zip(units[::-1].tolist(), reversed(labels), strict=True))
    by_class: dict[int, list[int]] = {}
    for unit in range(len(numbers)):
        by_class.setdefault(first_labels[unit], []).append(unit)
    rng, drawn, seen, taken = np.random.default_rng(seed), np.zeros(len(numbers), bool), 0, 0
    for class_units in by_class.values():
        seen += len(class_units)
        count = int(seen * share + 1e-9) - taken  # 1e-9 covers the rounding of 50 * (1 / 5)
        taken += count
        count = min(max(count, least), len(class_units) - 1)
        drawn[rng.permutation(class_units)[:count]] = True
    return drawn[units]


def draw_shots(labels: Sequence[int] | np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Draw `shots` images of each class at random, all of a class that has fewer.

    A larger number of shots draws the same images and others.

    Args:
        labels: of the N images.

    Returns:
        The row numbers of the drawn images, ascending.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    of_rows = np.asarray(labels)[shuffled]
    drawn = [shuffled[of_rows == label][:shots] for label in np.unique(of_rows)]
    return np.sort(np.concatenate(drawn))
