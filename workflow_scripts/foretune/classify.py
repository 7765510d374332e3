"""A dual encoder as a classifier: cosine logits over the captions of the classes."""

import torch.nn.functional as F
from torch import Tensor, nn

from foretune.embed import encode_captions, encode_images


def classification_logits(model: nn.Module, images: Tensor, texts: Tensor) -> Tensor:
    """Scaled cosine logits (B, C) of raw embeddings (B, d) and (C, d)."""
    logits = model.logit_scale.exp() * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    bias = getattr(model, "logit_bias", None)  # SigLIP has one
    return logits if bias is None else logits + bias


def predict(model: nn.Module, preprocess, tokenizer, images: Tensor, captions: list[str]) -> Tensor:
    """Predicted class (N,) of prepared images; the logit scale does not change an argmax."""
    model.eval()
    vectors = F.normalize(encode_images(model, preprocess, images), dim=-1)
    texts = F.normalize(encode_captions(model, tokenizer, captions), dim=-1)
    return (vectors @ texts.T).argmax(dim=1)
