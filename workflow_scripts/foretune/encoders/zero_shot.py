"""A dual encoder as a classifier: cosine logits over the captions of the classes."""

import torch.nn.functional as F
from torch import Tensor, nn


def classification_logits(model: nn.Module, images: Tensor, texts: Tensor) -> Tensor:
    """Scaled cosine logits (B, C) of raw embeddings (B, d) and (C, d)."""
    logits = model.logit_scale.exp() * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    bias = getattr(model, "logit_bias", None)  # SigLIP has one
    return logits if bias is None else logits + bias


def predict_classes(images: Tensor, texts: Tensor) -> Tensor:
    """Predicted class (N,) of raw embeddings (N, d) and (C, d); no logit scale changes it."""
    return (F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T).argmax(dim=1)
