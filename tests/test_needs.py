"""What jobs ask of a cluster."""

import pytest
from conftest import CLIP_MINI

from foretune.models import load_model
from foretune.needs import memory, minutes, parameters, training_images


@pytest.mark.parametrize(
    ("architecture", "millions"),  # as open_clip counts them
    [("ViT-B-32", 151), ("coca_ViT-B-32", 254), ("ViT-B-16-SigLIP", 203), ("EVA02-B-16", 150),
     ("ViT-L-14", 428), ("ViT-L-16-SigLIP-256", 652), ("ViT-SO400M-14-SigLIP", 877),
     ("ViT-H-14", 986), ("ViT-g-14", 1367), ("ViT-bigG-14", 2540), ("EVA02-E-14", 4704)],
)  # fmt: skip
def test_a_size_is_read_from_a_name(architecture, millions):
    assert 1 <= parameters({"architecture": architecture}) / (millions * 1e6) < 1.8


def test_a_size_is_read_from_weights_or_given():
    model, _, _ = load_model(CLIP_MINI)
    assert parameters(CLIP_MINI) == sum(each.numel() for each in model.state_dict().values())
    assert parameters({"architecture": "mine", "parameters": 7e8}) == 7e8


def test_needs_follow_model_and_data():
    base, large = {"architecture": "ViT-B-32"}, {"architecture": "ViT-bigG-14"}
    assert memory(10) < memory(1000) < memory(1000, base, 8) < memory(1000, large, 8)
    assert memory(1000, large, 8) > 8 * 4 * 2540  # its weights in float32, eight times
    manifest = {"splits": {"train": {"rows": 1000}}, "classes": ["a", "b"]}
    recipe = {"epochs": 3, "batch_size": 100}
    assert training_images(recipe, 2, manifest) == 2 * 3 * (1000 + 10 * 2)
    assert minutes(base, 1e6) < minutes(base, 1e7) < minutes(large, 1e7)
