"""Many small trainings side by side: the optimizer and the loss of G independent trials.

Every parameter is a tensor (G, ...) whose slice g belongs to trial g alone. No operation mixes
slices, so the result is that of G separate trainings, and a trial whose numbers are no longer
finite does not affect the others.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from foretune.core.entries import Recipe, Trial
from foretune.training.optim import compute_learning_rate


class TrialStack(Protocol):
    """G trials that are trained together, with their parameters (G, ...)."""

    trials: list[Trial]
    parameters: list[Tensor]

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (G, C, B) of images (B, d)."""

    def losses(
        self, images: Tensor, labels: Tensor, smoothing: float
    ) -> tuple[Tensor, list[Tensor]]:
        """Return mean losses (G,) for images (B, d) and labels (B,), and the gradients."""

    def get_trained_weights(self, index: int) -> dict[str, Tensor]:
        """Return a copy of one trial's weights, by their names in its file."""


class StackedOptimizer:
    """torch.optim.SGD or AdamW (with their defaults) for G trials with settings of their own.

    Args:
        recipe: with `clip_norm`, the gradients of each trial are scaled down to that norm, as
            torch.nn.utils.clip_grad_norm_ does.
        trials: their peak `learning_rate` and `weight_decay`.
        parameters: tensors (G, ...), which each step changes in place.
    """

    def __init__(self, recipe: Recipe, trials: list[Trial], parameters: list[Tensor]):
        self.recipe, self.parameters, self.steps = recipe, parameters, 0
        like = parameters[0]
        self.peaks = like.new_tensor([trial["learning_rate"] for trial in trials])
        self.decays = like.new_tensor([trial["weight_decay"] for trial in trials])
        self.averages = [torch.zeros_like(parameter) for parameter in parameters]
        if recipe["optimizer"] == "adamw":
            self.squares = [torch.zeros_like(parameter) for parameter in parameters]

    def step(self, gradients: list[Tensor], steps_per_epoch: int) -> float:
        """Update the parameters; this overwrites the gradients (G, ...).

        Returns:
            This step's learning rate as a share of the peak.
        """
        share = compute_learning_rate(self.recipe, 1.0, self.steps, steps_per_epoch)
        self.steps += 1
        if "clip_norm" in self.recipe:
            clip_grad_norms(gradients, self.recipe["clip_norm"])
        update = self.adamw if self.recipe["optimizer"] == "adamw" else self.sgd
        for index, (parameter, gradient) in enumerate(zip(self.parameters, gradients, strict=True)):
            shape = (-1, *[1] * (parameter.dim() - 1))
            update(index, gradient, (self.peaks * share).view(shape), self.decays.view(shape))
        return share

    def sgd(self, index: int, gradient: Tensor, rate: Tensor, decay: Tensor) -> None:
        """Update one parameter by SGD with momentum; rate and decay: (G, 1, ...)."""
        parameter, average = self.parameters[index], self.averages[index]
        gradient.addcmul_(parameter, decay)
        average.mul_(self.recipe["momentum"]).add_(gradient)
        parameter.addcmul_(average, rate, value=-1)

    def adamw(self, index: int, gradient: Tensor, rate: Tensor, decay: Tensor) -> None:
        """Update one parameter by AdamW; rate and decay: (G, 1, ...)."""
        parameter, average = self.parameters[index], self.averages[index]
        square = self.squares[index]
        beta1, beta2, epsilon = 0.9, 0.999, 1e-8
        parameter.mul_(1 - rate * decay)
        average.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        spread = square.sqrt().div_((1 - beta2**self.steps) ** 0.5).add_(epsilon)
        parameter.addcmul_(average.div(spread), rate / (1 - beta1**self.steps), value=-1)


def clip_grad_norms(gradients: list[Tensor], max_norm: float) -> None:
    """Scale each trial's gradients (G, ...) in place, so that their joint norm is at most this."""
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    scale = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return mean losses (G,) of logits (G, C, B) for labels (B,), and the gradients (G, C, B).

    Classes are the middle axis because torch's softmax along a short last axis takes ten times
    as long on a CPU.

    Args:
        smoothing: label_smoothing of torch.nn.functional.cross_entropy.
    """
    classes, size = logits.shape[1:]
    correct = (slice(None), labels, torch.arange(size))
    log_probabilities = F.log_softmax(logits, dim=1)
    losses = log_probabilities[correct].mean(dim=1).mul_(smoothing - 1)
    if smoothing:
        losses -= smoothing * log_probabilities.mean(dim=(1, 2))
    gradients = log_probabilities.exp_()
    gradients[correct] -= 1 - smoothing
    if smoothing:
        gradients -= smoothing / classes
    return losses, gradients.div_(size)


class StackedLayers:
    """The linear layers of G trials, which start from zero: weights (G, C, d) and biases (G, C).

    One product with all weights, as (G * C, d), serves all trials.
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
