"""Datasets that are divided by their classes."""

import pytest

from foretune.core.class_halves import HALVES, expand_class_halves
from foretune.core.errors import ForetuneError

WHOLE = {"folder": "d", "classes": HALVES, "shifted": {}, "shards": 1}


def test_two_datasets_take_the_place_of_one():
    other = {"folder": "e", "classes": {"base": "bass", "new": "half"}, "shifted": {}}
    expanded = expand_class_halves({"birds": WHOLE, "guitars": other})
    assert list(expanded) == ["birds_base", "birds_new", "guitars"]
    assert expanded["birds_new"] == {
        "folder": "d", "class_half": "new", "shifted": {}, "shards": 1,
    }  # fmt: skip
    assert expanded["guitars"] is other


def test_what_cannot_be_divided_is_one_line():
    with pytest.raises(ForetuneError, match=r"^datasets\.birds_new: the half of .* gets this name"):
        expand_class_halves({"birds": WHOLE, "birds_new": {"folder": "e", "shifted": {}}})
    with pytest.raises(ForetuneError, match=r"^datasets\.birds\.shifted: a shifted test needs all"):
        expand_class_halves({"birds": WHOLE | {"shifted": {"art": {"folder": "e"}}}})
