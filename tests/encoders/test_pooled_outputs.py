"""Pooled outputs of every kind of image tower: the projection of one is the embedding."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from checkout import CLIP_MINI, ROOT
from foretune.core.errors import ForetuneError
from foretune.encoders.cache import read_embeddings
from foretune.encoders.encode import embed_images
from foretune.encoders.imports import open_clip
from foretune.encoders.loading import load_model
from foretune.encoders.pooled import remove_projection


def make_timm_tower(name, **options):
    return open_clip.timm_model.TimmModel(name, 24, image_size=160, **options)


def load_tower(family):
    return load_model({"folder": str(ROOT / "resources/mini" / family)}).model.visual


# Of each: the tower, and the layer that `remove_projection` has to take out.
TOWERS = {
    "CLIP": lambda: (tower := load_tower("clip"), as_layer(tower.proj)),
    "CoCa": lambda: (tower := load_tower("coca"), as_layer(tower.proj)),
    "EVA-02": lambda: (tower := load_tower("eva02"), tower.trunk.head),
    "ResNet": lambda: (
        tower := open_clip.modified_resnet.ModifiedResNet([1] * 4, 24, 2, image_size=32, width=8),
        tower.attnpool.c_proj,
    ),
    "linear": lambda: (
        tower := make_timm_tower("test_convnext", pool="", proj="linear", proj_bias=True),
        tower.head.proj,
    ),
    "mlp": lambda: (
        tower := make_timm_tower("test_convnext", pool="", proj="mlp"), tower.head.mlp
    ),
    "classifier": lambda: (
        tower := make_timm_tower("test_convnext", pool="avg", proj=None), tower.trunk.head.fc
    ),
    "attention": lambda: (
        tower := make_timm_tower("test_vit4", pool="map", proj=None), tower.trunk.head
    ),
}  # fmt: skip


def as_layer(matrix):
    layer = nn.Linear(*matrix.shape, bias=False)
    layer.weight.data = matrix.data.T.clone()
    return layer


def run_tower(tower):
    images = torch.rand(3, 3, *np.broadcast_to(tower.image_size, 2), generator=torch.manual_seed(0))
    with torch.inference_mode():
        output = tower.eval()(images)
    return output[0] if isinstance(output, tuple) else output  # CoCa's also returns tokens


@pytest.mark.parametrize("family", TOWERS)
def test_remove_projection_leaves_what_the_projection_maps_to_the_embedding(family):
    tower, projection = TOWERS[family]()
    embedding = run_tower(tower)
    remove_projection(tower)
    pooled = run_tower(tower)
    with torch.inference_mode():
        assert torch.allclose(projection(pooled), embedding, atol=1e-5)
    assert pooled.ndim == 2 and pooled.std() > 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: load_tower("siglip"),
        lambda: make_timm_tower("test_convnext", pool="avg", proj="none"),
        nn.Identity,
    ],
)
def test_remove_projection_refuses_a_tower_without_one(make):
    tower = make()
    with pytest.raises(ForetuneError) as error:
        remove_projection(tower)
    assert str(error.value).startswith("methods.linear_probe.features: pooled: the image tower")
    assert "\n" not in str(error.value)


def test_embed_images_writes_pooled_outputs_and_nothing_else(small_task, tmp_path):
    embed_images(CLIP_MINI, small_task / "dataset", tmp_path, pooled=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "train.parquet", "val.parquet", "test.parquet"
    }  # fmt: skip
    digest = json.loads((small_task / "dataset/dataset.json").read_text())["digest"]
    projection = load_tower("clip").proj.detach().numpy()
    for split in ("train", "val", "test"):
        embeddings = read_embeddings(small_task / f"embeddings/{split}.parquet")
        pooled = read_embeddings(tmp_path / f"{split}.parquet", kind="pooled", dataset=digest)
        assert pooled.metadata == {**embeddings.metadata, "kind": "pooled"}
        assert pooled.vectors.shape == (len(embeddings.vectors), 128)
        assert np.allclose(pooled.vectors @ projection, embeddings.vectors, atol=1e-4)
        assert all(np.array_equal(pooled.columns[key], embeddings.columns[key])
                   for key in ("id", "label"))  # fmt: skip
