"""Linear probes: a linear layer on the raw image embeddings, from zero."""

import torch
from torch import Tensor

from foretune.training.stacked_trials import cross_entropy


class StackedProbes:
    """The layers of G trials, trained together: weights (G, C, d) and biases (G, C).

    One product with all weights, as (G * C, d), serves all trials. Embeddings are read as the
    encoder gives them, not of unit length, as a layer on the encoder would.
    """

    def __init__(self, trials: list[dict], width: int, classes: int):
        self.trials = trials
        self.parameters = [
            torch.zeros(len(trials), classes, width),
            torch.zeros(len(trials), classes),
        ]

    def logits(self, images: Tensor) -> Tensor:
        """Logits (G, C, B) of images (B, d)."""
        weight, bias = self.parameters
        return (weight.flatten(0, 1) @ images.T).view(*bias.shape, -1).add_(bias[:, :, None])

    def losses(self, images: Tensor, labels: Tensor, smoothing: float):
        """Mean losses (G,) of images (B, d) and labels (B,), and each parameter's gradient."""
        losses, gradients = cross_entropy(self.logits(images), labels, smoothing)
        weight = (gradients.flatten(0, 1) @ images).view_as(self.parameters[0])
        return losses, [weight, gradients.sum(dim=2)]

    def get_trained_weights(self, number: int) -> dict[str, Tensor]:
        """A copy of one trial's layer: weight (d, C), bias (C,)."""
        weight, bias = self.parameters
        return {"weight": weight[number].T.clone(), "bias": bias[number].clone()}
