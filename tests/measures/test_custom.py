"""The example in measures/custom.py, the documented place for measures of one's own."""

import numpy as np
import pytest

from foretune.core import config
from foretune.encoders.streams import ArraySource
from foretune.measures import custom
from foretune.measures.compute import MEASURES, MeasureOptions, measure_task


@pytest.fixture
def example():
    """The code of the example, without the comment signs."""
    with open(custom.__file__) as file:
        comments = [line for line in file if line.startswith("#")]
    return "".join(line.removeprefix("#").removeprefix(" ") for line in comments)


def test_custom_example_is_measured(example):
    rng = np.random.default_rng(0)
    texts, labels = np.eye(4, 6), rng.integers(0, 4, 200)
    images = texts[labels] + 0.5 * rng.normal(size=(200, 6))
    before = set(MEASURES)
    try:
        exec(example, {})
        (name,) = set(MEASURES) - before
        source = ArraySource(images, texts, labels)
        task = measure_task(source, 0, MeasureOptions(bootstrap=16))
    finally:
        for name in set(MEASURES) - before:
            del MEASURES[name]
    expected = (images[:, :4].argmax(1) == labels).mean()
    assert 0.5 < expected < 1
    assert task["measures"]["zero_shot_accuracy"] == pytest.approx(expected)
    assert task["details"]["zero_shot_accuracy"]["interval"] is not None


def test_custom_example_may_be_named_in_the_config(example, tmp_path, monkeypatch):
    (tmp_path / "custom.py").write_text(example)
    monkeypatch.setattr(config, "MEASURES_ROOM", tmp_path)
    assert config.list_measure_names() == ["zero_shot_accuracy"]
