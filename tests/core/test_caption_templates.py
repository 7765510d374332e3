"""Captions that the config names."""

import pytest

from foretune.core.caption_templates import format_caption, read_caption
from foretune.core.errors import ForetuneError

MNIST = ['a photo of the number: "{}".']


@pytest.mark.parametrize(
    "names", [["mnist", ""], ["digits", "MNIST"], ["d", "clip-benchmark/wds_mnist"], ["SV-HN", ""]]
)
def test_openai_templates_are_found_by_any_name_of_the_dataset(names):
    assert read_caption("datasets.d", "openai", names) == MNIST


def test_openai_templates_have_their_published_numbers():
    counts = {"cifar100": 18, "cars": 8, "dtd": 8, "eurosat": 3, "gtsrb": 3, "resisc45": 18,
              "sun397": 2, "imagenet": 80}  # fmt: skip
    for name, count in counts.items():
        templates = read_caption("datasets.d", "openai", [name])
        assert len(set(templates)) == count and all("{}" in text for text in templates)


def test_captions_that_are_not_there_are_named(tmp_path):
    with pytest.raises(
        ForetuneError, match=r"^datasets\.birds\.caption: there are no templates of"
    ):
        read_caption("datasets.birds", "openai", ["birds", ""])
    missing = str(tmp_path / "cupl.json")
    with pytest.raises(
        ForetuneError, match=r"datasets\.birds\.caption: no such file: .*cupl\.json"
    ):
        read_caption("datasets.birds", missing, ["birds"])


def test_captions_are_shown_in_words():
    assert format_caption("a {}") == "a {}"
    assert format_caption(["a {}", "b {}", "c {}", "d {}", "e {}"]) == "a {}; b {}; c {} and 2 more"
    assert format_caption("path/cupl.json") == "the captions of each class in cupl.json"
