"""The captions of a dataset's classes: one or several of each class. Free of torch."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from foretune.core.errors import ForetuneError
from foretune.data.sources.base import format_class_names, join_names
from foretune.encoders.cache import Embeddings

Captions = list[list[str]]  # of each class


def make_captions(classes: list[str], templates: str | list[str]) -> Captions:
    """Return the captions of classes by one template, or by several, with {} for the name."""
    templates = [templates] if isinstance(templates, str) else templates
    return [[template.replace("{}", name) for template in templates] for name in classes]


def read_class_captions(path: Path, classes: list[str]) -> Captions:
    """Read captions that were written per class, as those of CuPL (Pratt et al. 2023).

    path: JSON file with a list of captions, or one caption, by the name of each class.

    Raises ForetuneError if the file is damaged, leaves out a class or has one twice.
    """
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise ForetuneError(f"{path}: is not JSON ({error})") from None
    if not isinstance(content, tuple):
        raise ForetuneError(f"{path}: does not hold captions by class name")
    by_class: dict[str, Any] = {}
    for name, (key, texts) in zip(format_class_names(k for k, _ in content), content, strict=True):
        if name.casefold() in by_class:
            raise ForetuneError(f"{path}: has the class {key} twice; capitals do not count")
        by_class[name.casefold()] = texts
    if missing := [name for name in classes if name.casefold() not in by_class]:
        raise ForetuneError(f"{path}: has no captions of the classes {join_names(missing)}")
    captions = []
    for name in classes:
        given = by_class[name.casefold()]
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not texts or not all(map(is_caption, texts)):
            raise ForetuneError(f"{path}: {name}: is not a list of captions")
        captions.append(texts)
    return captions


def is_caption(value: Any) -> bool:
    """Return whether a value is a text, not blank and without halves of characters."""
    try:
        return isinstance(value, str) and bool(value.encode().strip())
    except UnicodeEncodeError:
        return False


def get_captions(texts: Embeddings) -> Captions:
    """Return the captions of each class that a cache of their embeddings was made from.

    Raises ForetuneError if the cache was written by a version that kept one caption per class.
    """
    if "captions" not in texts.columns:
        raise ForetuneError("a cache of captions comes from another version; run the study again")
    return [list(of_class) for of_class in texts.columns["captions"]]


def find_first_equal(values: Iterable[bytes]) -> np.ndarray:
    """Return, for each value, the number of the first one that equals it: (N,) int32."""
    first: dict[bytes, int] = {}
    numbers = [first.setdefault(value, number) for number, value in enumerate(values)]
    return np.array(numbers, np.int32)


def note_equal_captions(same_as: np.ndarray | None, classes: list[str]) -> list[str]:
    """Return a note that names the classes whose captions have equal tokens, or no note.

    same_as: (C,), the first class with the same tokens as each class; None if that is not known.
    """
    if same_as is None:
        return []
    groups: dict[int, list[str]] = {}
    for label, first in enumerate(same_as.tolist()):
        # Notes are joined by semicolons.
        groups.setdefault(first, []).append(classes[label].replace(";", ","))
    equal = [" = ".join(names[:10]) for names in groups.values() if len(names) > 1]
    if not equal:
        return []
    n = sum(len(names) for names in groups.values() if len(names) > 1)
    more = f" and {len(equal) - 10} more groups" if len(equal) > 10 else ""
    return [
        f"the captions of {n} classes are the same to the model's tokenizer, so that it cannot "
        f"tell them apart by their names: {', '.join(equal[:10])}{more} "
        "(`classes:` gives shorter or other names)"
    ]
