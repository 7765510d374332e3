"""Hidden features of every kind of image tower, from the same forward pass as the embedding."""

import numpy as np
import pytest
import torch
from torch import nn

from checkout import CLIP_MINI, ROOT
from foretune.core.errors import ForetuneError
from foretune.encoders.encode import encode_images
from foretune.encoders.hidden import find_hidden_block, pool_tokens, record_hidden_features
from foretune.encoders.imports import open_clip
from foretune.encoders.loading import load_model


@pytest.mark.parametrize("family", ["clip", "siglip", "coca", "eva02"])
def test_record_hidden_features_of_the_bundled_towers(family):
    loaded = load_model({"folder": str(ROOT / "resources/mini" / family)})
    check_features(loaded.model.visual, torch.rand(3, 3, 32, 32), width=128)


@pytest.mark.parametrize(("architecture", "width"), [("RN50", 1024), ("MobileCLIP-S1", 256)])
def test_record_hidden_features_of_convolutional_towers(architecture, width):
    tower = open_clip.create_model(architecture, load_weights=False).visual.eval()
    side = open_clip.get_model_config(architecture)["vision_cfg"]["image_size"]
    check_features(tower, torch.rand(3, 3, side, side), width)


def check_features(tower, images, width):
    with torch.inference_mode(), record_hidden_features(tower) as features:
        vectors, again = (
            output[0] if isinstance(output, tuple) else output  # CoCa's tower also returns tokens
            for output in (tower(images), tower(images[:2]))
        )
    assert [part.shape for part in features] == [(3, 2 * width), (2, 2 * width)]
    assert torch.allclose(features[0][:2], features[1], atol=1e-4)
    assert torch.allclose(vectors[:2], again, atol=1e-4)
    assert not tower._forward_pre_hooks and not tower._forward_hooks  # the hooks are gone


def test_pool_tokens_takes_every_layout():
    tokens = torch.rand(5, 7, 4)
    expected = torch.cat([tokens.mean(1), tokens.std(1, correction=0)], dim=1)
    assert torch.allclose(pool_tokens(tokens, 5), expected)
    assert torch.allclose(pool_tokens(tokens.transpose(0, 1), 5), expected)
    image = torch.rand(5, 8, 3, 3)  # channels first
    expected = torch.cat([image.mean((2, 3)), image.flatten(2).std(2, correction=0)], dim=1)
    assert torch.allclose(pool_tokens(image, 5), expected)
    assert torch.allclose(pool_tokens(image.permute(0, 2, 3, 1), 5), expected, atol=1e-6)


def test_a_tower_without_blocks_has_no_hidden_features():
    tower = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    assert find_hidden_block(tower) is None
    with record_hidden_features(tower) as features:
        tower(torch.rand(2, 3, 2, 2))
    assert features == []


@pytest.mark.parametrize("fits", [3, 0])
def test_encode_images_goes_on_with_smaller_batches_if_memory_is_short(fits, capsys):
    model, preprocess, _ = load_model(CLIP_MINI)
    images = np.random.default_rng(0).integers(0, 255, (11, 3, 32, 32), dtype=np.uint8)
    with record_hidden_features(model.visual) as hidden:
        whole = encode_images(model, preprocess, images)

    def run_out(_module, inputs, _output):
        if inputs[0].shape[0] > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.visual.ln_post.register_forward_hook(run_out)  # after the block of hidden features
    if not fits:
        with pytest.raises(ForetuneError, match="a single image does not fit the GPU's memory"):
            encode_images(model, preprocess, images)
        return
    with record_hidden_features(model.visual) as hidden_by_parts:
        vectors = encode_images(model, preprocess, images)
    assert torch.allclose(vectors, whole, atol=1e-5)
    assert [len(part) for part in hidden_by_parts] == [2] * 5 + [1]
    assert torch.allclose(torch.cat(hidden_by_parts), torch.cat(hidden), atol=1e-4)
    assert "going on with 2; set `encode_batch_size: 2`" in capsys.readouterr().out
