"""Linear probes that start from the zero-shot classifier (Silva-Rodriguez et al. 2024's ZS-LP).

A class's weights start as the unit vector of its caption times the model's logit scale, and act on
image embeddings of unit length. At the start, the logits are therefore the model's own.
(arXiv:2312.12730, section 4.1. Wortsman et al. 2022 start the classifier that they fine-tune in the
same way.)
"""

import torch.nn.functional as F
from torch import Tensor

from foretune.core.entries import Trial
from foretune.training.linear_probe import StackedProbes


class StackedTextProbes(StackedProbes):
    """The linear layers of G trials that start from the zero-shot classifier, trained together.

    The parameters are the differences from the start, (G, C, d), and biases (G, C): weight decay
    draws a layer back to the zero-shot classifier (L2-SP; Li et al. 2018). A step of SGD changes a
    logit by at most twice the learning rate, whatever the logit scale is.

    Args:
        texts: raw caption embeddings (C, d).
        scale: the logit scale, as a factor.
    """

    def __init__(self, trials: list[Trial], texts: Tensor, scale: float):
        super().__init__(trials, texts.shape[1], len(texts))
        self.start = scale * F.normalize(texts, dim=1)

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (G, C, B) of images (B, d) of unit length."""
        return super().logits(images).add_(self.start @ images.T)

    def get_trained_weights(self, index: int) -> dict[str, Tensor]:
        """Return a copy of one trial's layer: weight (d, C) and bias (C,)."""
        layer = super().get_trained_weights(index)
        return {**layer, "weight": layer["weight"] + self.start.T}
