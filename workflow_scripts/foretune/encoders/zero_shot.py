"""Zero-shot classification by a dual encoder: cosine logits over the captions of the classes."""

import torch.nn.functional as F
from torch import Tensor

from foretune.encoders.loading import DualEncoder


def classification_logits(model: DualEncoder, images: Tensor, texts: Tensor) -> Tensor:
    """Return the model's scaled cosine logits (B, C) of raw embeddings (B, d) and (C, d)."""
    logits = model.logit_scale.exp() * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    bias = getattr(model, "logit_bias", None)  # SigLIP has one
    return logits if bias is None else logits + bias


def predict_classes(images: Tensor, texts: Tensor) -> Tensor:
    """Return the predicted classes (N,) of raw embeddings (N, d) and (C, d).

    They do not depend on a logit scale or bias.
    """
    return (F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T).argmax(dim=1)
