"""Pooled outputs of image towers: what they give before the projection to the captions' space.

CLIP's own linear probes read them (Radford et al. 2021, arXiv:2103.00020, appendix A.3). Towers
have the projection in different places: CLIP's and CoCa's as a parameter, CLIP's ResNets in their
attention pool, timm's as a layer after the trunk (ConvNeXt, ViTamin) or as the trunk's classifier
(EVA-02, MobileCLIP, PE-Core). SigLIP's towers have none.
"""

from typing import Any

import torch
from torch import nn

from foretune.core.errors import ForetuneError

LAYERS = ("proj", "mlp")  # after timm's trunk, as open_clip calls them


def remove_projection(tower: Any) -> None:
    """Take the projection out of an image tower of open_clip's, which then gives pooled outputs.

    Raises:
        ForetuneError: the tower has none, so that its pooled outputs are its embeddings.
    """
    head: Any = getattr(tower, "head", None)
    trunk: Any = getattr(tower, "trunk", None)
    layers = [name for name in LAYERS if hasattr(head, name)]
    if getattr(tower, "proj", None) is not None:
        tower.proj = None
    elif hasattr(tower, "attnpool"):
        tower.attnpool.c_proj = make_identity(tower.attnpool.c_proj)
    elif layers:
        delattr(head, layers[0])
    elif isinstance(head, nn.Sequential) and not len(head) and has_classifier(trunk):
        trunk.reset_classifier(0)  # it keeps the pooling
    else:
        raise ForetuneError(
            "methods.linear_probe.features: pooled: "
            "the image tower of this model has no projection of its own after the pooling; "
            "use projected, or leave the model out of methods.linear_probe.models"
        )


def has_classifier(trunk: Any) -> bool:
    """Return whether a model of timm's ends with a linear layer."""
    return hasattr(trunk, "get_classifier") and isinstance(trunk.get_classifier(), nn.Linear)


def make_identity(layer: nn.Linear) -> nn.Linear:
    """Return a linear layer that changes nothing; the attention pool reads its weights itself."""
    identity = nn.Linear(layer.in_features, layer.in_features).to(layer.weight)
    with torch.no_grad():
        nn.init.eye_(identity.weight)
        nn.init.zeros_(identity.bias)
    return identity
