"""Tests of the weights to which a model returns after a training."""

import pytest
import torch

from checkout import CLIP_MINI
from foretune.encoders.loading import load_model
from foretune.training.base_weights import BaseWeights
from foretune.training.methods import METHODS, make_trainable

SETTINGS = {
    "lora": {"rank": 4, "alpha": 8, "projections": "qkvo"},
    "clip_lora": {"rank": 2, "alpha": 1.4, "projections": "qkv", "dropout": 0.25},
    "lp_ft": {"towers": "image", "head": [3, 128]},
}
COPIED = {"lora": 0, "clip_lora": 0, "attention": 7, "bitfit": 42}  # of 4 + 3 blocks


@pytest.mark.parametrize("method", METHODS)
def test_model_returns_to_its_base_weights_after_two_trainings(method):
    model, *_ = load_model(CLIP_MINI, "cpu")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    base, copied = BaseWeights(model), []
    for _ in range(2):
        trainable = make_trainable(model, method, {"towers": "both", **SETTINGS.get(method, {})})
        base.keep(trainable.parameters)
        with torch.no_grad():
            for parameter in trainable.parameters.values():
                parameter.add_(1.0)
        trainable.merge()
        changed = [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]
        assert changed
        base.restore()
        after = model.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], before[name]) for name in before)
        copied.append(len(before) - len(base.shared))
    assert copied[0] == copied[1] == COPIED.get(method, len(changed))


def test_buffers_are_copied_at_once():
    model = torch.nn.BatchNorm1d(2)
    base = BaseWeights(model)
    model.train()(torch.rand(5, 2))
    assert model.running_mean.any() and model.num_batches_tracked == 1
    base.restore()
    assert not model.running_mean.any() and model.num_batches_tracked == 0
