"""Many small trainings side by side: what G trials share that have no parameter in common.

Every parameter is a tensor (G, ...) of which slice g belongs to trial g alone. All operations
keep the slices apart, so that the result is that of G separate trainings, and a trial whose
numbers are no longer finite spoils no other.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from foretune.training.optim import compute_learning_rate


class StackedOptimizer:
    """torch.optim.SGD or AdamW (with their defaults) for G trials, each with its own settings.

    recipe: `optimizer`, `momentum` (SGD's) and what the schedule needs; with `clip_norm`, each
    trial's gradients are scaled down to that norm, as torch.nn.utils.clip_grad_norm_ does.
    trials: `learning_rate` (the peak) and `weight_decay`. parameters: tensors (G, ...), changed
    in place.
    """

    def __init__(self, recipe: dict, trials: list[dict], parameters: list[Tensor]):
        self.recipe, self.parameters, self.steps = recipe, parameters, 0
        like = parameters[0]
        self.peaks = like.new_tensor([trial["learning_rate"] for trial in trials])
        self.decays = like.new_tensor([trial["weight_decay"] for trial in trials])
        self.averages = [torch.zeros_like(parameter) for parameter in parameters]
        if recipe["optimizer"] == "adamw":
            self.squares = [torch.zeros_like(parameter) for parameter in parameters]

    def step(self, gradients: list[Tensor], steps_per_epoch: int) -> float:
        """Update the parameters, and overwrite the gradients (G, ...) on the way.

        Returns the share of the peak learning rate that the schedule gave this step.
        """
        share = compute_learning_rate(self.recipe, 1.0, self.steps, steps_per_epoch)
        self.steps += 1
        if "clip_norm" in self.recipe:
            clip_grad_norms(gradients, self.recipe["clip_norm"])
        update = self.adamw if self.recipe["optimizer"] == "adamw" else self.sgd
        for number, (parameter, gradient) in enumerate(
            zip(self.parameters, gradients, strict=True)
        ):
            shape = (-1, *[1] * (parameter.dim() - 1))
            update(number, gradient, (self.peaks * share).view(shape), self.decays.view(shape))
        return share

    def sgd(self, number: int, gradient: Tensor, rate: Tensor, decay: Tensor) -> None:
        parameter, average = self.parameters[number], self.averages[number]
        gradient.addcmul_(parameter, decay)
        average.mul_(self.recipe["momentum"]).add_(gradient)
        parameter.addcmul_(average, rate, value=-1)

    def adamw(self, number: int, gradient: Tensor, rate: Tensor, decay: Tensor) -> None:
        parameter, average, square = (
            self.parameters[number], self.averages[number], self.squares[number],
        )  # fmt: skip
        first, second, epsilon = 0.9, 0.999, 1e-8
        parameter.mul_(1 - rate * decay)
        average.lerp_(gradient, 1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        spread = square.sqrt().div_((1 - second**self.steps) ** 0.5).add_(epsilon)
        parameter.addcmul_(average.div(spread), rate / (1 - first**self.steps), value=-1)


def clip_grad_norms(gradients: list[Tensor], largest: float) -> None:
    """Scale each trial's gradients (G, ...), in place, so that their joint norm is no larger."""
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    scale = (largest / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Mean losses (G,) of logits (G, C, B) for labels (B,), and their gradients (G, C, B).

    Classes are the middle axis because torch's softmax along a short last axis takes ten times
    as long on a CPU. smoothing: as label_smoothing of torch.nn.functional.cross_entropy.
    """
    classes, size = logits.shape[1:]
    right = (slice(None), labels, torch.arange(size))
    logs = F.log_softmax(logits, dim=1)
    losses = logs[right].mean(dim=1).mul_(smoothing - 1)
    if smoothing:
        losses -= smoothing * logs.mean(dim=(1, 2))
    gradients = logs.exp_()
    gradients[right] -= 1 - smoothing
    if smoothing:
        gradients -= smoothing / classes
    return losses, gradients.div_(size)
