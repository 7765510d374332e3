"""Base-to-new evaluation: a dataset whose classes are divided into two datasets.

A model that is fine-tuned on the base classes is tested on images of these and of the new classes,
each with its own captions (Zhou et al. 2022, arXiv:2203.05557, section 4.1).
"""

from foretune.core.errors import ForetuneError

HALVES = {"base": "half", "new": "half"}


def expand_class_halves(datasets: dict[str, dict]) -> dict[str, dict]:
    """Return the config's entries with two in place of each that has HALVES as its `classes`.

    They are named `{dataset}_base` and `{dataset}_new`, and say by `class_half` which they are.

    Raises:
        ForetuneError: another dataset has one of these names, or the dataset has shifted tests.
    """
    expanded: dict[str, dict] = {}
    for name, entry in datasets.items():
        if entry.get("classes") != HALVES:
            expanded[name] = entry
            continue
        if entry["shifted"]:
            raise ForetuneError(
                f"datasets.{name}.shifted: a shifted test needs all classes; leave it out, or give "
                "the whole dataset an entry of its own"
            )
        whole = {key: value for key, value in entry.items() if key != "classes"}
        for half in HALVES:
            if f"{name}_{half}" in datasets:
                raise ForetuneError(
                    f"datasets.{name}_{half}: the half of the classes of {name} gets this name; "
                    "rename one of them"
                )
            expanded[f"{name}_{half}"] = {**whole, "class_half": half}
    return expanded
