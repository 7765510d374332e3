"""Linear probes: a linear layer on the raw image embeddings, trained from zero."""

import torch
from torch import Tensor

from foretune.core.entries import Trial
from foretune.training.stacked_trials import cross_entropy


class StackedProbes:
    """The linear layers of G trials, trained together: weights (G, C, d) and biases (G, C).

    One product with all weights, as (G * C, d), serves all trials. Embeddings are not scaled to
    unit length: a layer on top of the encoder would not do so either.
    """

    def __init__(self, trials: list[Trial], width: int, classes: int):
        self.trials = trials
        self.parameters = [
            torch.zeros(len(trials), classes, width),
            torch.zeros(len(trials), classes),
        ]

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (G, C, B) of images (B, d)."""
        weight, bias = self.parameters
        return (weight.flatten(0, 1) @ images.T).view(*bias.shape, -1).add_(bias[:, :, None])

    def losses(
        self, images: Tensor, labels: Tensor, smoothing: float
    ) -> tuple[Tensor, list[Tensor]]:
        """Return mean losses (G,) for images (B, d) and labels (B,), and the gradients.

        There is one gradient per parameter, of its shape.
        """
        losses, gradients = cross_entropy(self.logits(images), labels, smoothing)
        weight_gradient = (gradients.flatten(0, 1) @ images).view_as(self.parameters[0])
        return losses, [weight_gradient, gradients.sum(dim=2)]

    def get_trained_weights(self, index: int) -> dict[str, Tensor]:
        """Return a copy of one trial's layer: weight (d, C) and bias (C,)."""
        weight, bias = self.parameters
        return {"weight": weight[index].T.clone(), "bias": bias[index].clone()}
