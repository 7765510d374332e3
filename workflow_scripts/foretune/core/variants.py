"""Variants of a method: few-shot training sets of several sizes, and repetitions by seed.

`shots: [1, 4]` and `seeds: [0, 1]` in the entry `lora` become four entries, from `lora_1shot_seed0`
to `lora_4shot_seed1`, each a method of its own to every job. The tables of tasks average the seeds
and call the method `lora_1shot` or `lora_4shot`.
"""

import itertools
import re
from typing import Any, NamedTuple

PATTERN = re.compile(r"(?P<method>\w+?)(_(?P<shots>\d+)shot)?(_seed(?P<seed>\d+))?")


class Variant(NamedTuple):
    """The method of a variant; the training images per class and the seed, if it names them."""

    method: str
    shots: int | None = None
    seed: int | None = None

    @property
    def name(self) -> str:
        """The variant's name in a study."""
        return self.averaged_name + ("" if self.seed is None else f"_seed{self.seed}")

    @property
    def averaged_name(self) -> str:
        """The name that the variants of all seeds share."""
        return self.method + ("" if self.shots is None else f"_{self.shots}shot")


def parse_variant(name: str) -> Variant:
    """Return the variant that a name of a method means."""
    match = PATTERN.fullmatch(name)
    if not match:
        return Variant(name)
    shots, seed = (None if match[key] is None else int(match[key]) for key in ("shots", "seed"))
    return Variant(match["method"], shots, seed)


def get_base_method(name: str) -> str:
    """Return the method of a variant, such as "lora" of "lora_4shot_seed1"."""
    return parse_variant(name).method


def average_name(name: str) -> str:
    """Return the name of a variant without its seed."""
    return parse_variant(name).averaged_name


def expand_variants(methods: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return an entry per method, number of shots and seed of the config's entries `methods`."""
    expanded = {}
    for name, recipe in methods.items():
        shots, seeds = recipe.pop("shots", [None]), recipe.pop("seeds", [None])
        for count, seed in itertools.product(shots, seeds):
            variant = Variant(name, None if count == "all" else count, seed)
            settings = {"shots": variant.shots, "seed": variant.seed}
            given = {key: value for key, value in settings.items() if value is not None}
            expanded[variant.name] = {**recipe, **given}
    return expanded
