"""LP++, a linear probe that blends in the captions (Huang et al., CVPR 2024, arXiv:2404.02285).

The logit of class k for an image is f (w_k + a_k t_k), with the unit vectors f of the image and t_k
of the caption. The class vectors w_k and the weights a_k of the captions are trained by gradient
descent on all training images, from a start and with step sizes that are computed from the data:

    w_k starts as the sum of the training images of class k
    a_k starts as 250 times the mean over classes of the mean cosine of an image and its caption
    step of w: 4 N / (the largest eigenvalue of F^T F), for the N training images F
    step of a: N / (4 max_k sum_i (f_i t_k)^2), once in every 10 steps of w

These are the authors' published code. It differs from this module as follows. w starts from the sum
of MOST_SHOTS images at most, because the paper has no more, and a sum of hundreds saturates the
softmax. The layer has no bias, as in the paper. `a` moves a tenth as far in each step instead.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from foretune.core.entries import Trial
from foretune.training.stacked_trials import cross_entropy

MOST_SHOTS = 16
START_OF_CAPTIONS = 250
STEPS_PER_CAPTION_STEP = 10


class StackedLPPlusPlus:
    """The classifiers of G trials, trained together: w (G, C, d) and a (G, C).

    Gradients are multiplied by LP++'s step sizes, so that a learning rate of 1 is LP++.

    Args:
        texts: raw caption embeddings (C, d).
        images: training images (N, d) of unit length.
        labels: their classes (N,).
        momentum: of the optimizer. In LP++, a's steps have none, and momentum would lengthen them.
    """

    def __init__(
        self, trials: list[Trial], texts: Tensor, images: Tensor, labels: Tensor, momentum: float
    ):
        self.trials, self.texts = trials, F.normalize(texts, dim=1)
        size, classes = len(images), len(texts)
        counts = labels.bincount(minlength=classes)
        shares = (counts.clamp(max=MOST_SHOTS) / counts.clamp(min=1)).to(images.dtype)
        sums = torch.zeros_like(texts).index_add_(0, labels, images)
        cosines = images @ self.texts.T
        own = cosines.gather(1, labels[:, None])[:, 0]
        means = torch.zeros(classes).to(own).index_add_(0, labels, own)[counts > 0]
        caption_weight = START_OF_CAPTIONS * (means / counts[counts > 0]).mean()
        self.parameters = [
            (sums * shares[:, None]).repeat(len(trials), 1, 1),
            caption_weight.repeat(len(trials), classes),
        ]
        caption_step = size / (4 * cosines.square().sum(dim=0).max())
        self.steps = [
            4 * size / torch.linalg.eigvalsh(images.T @ images)[-1],
            caption_step * (1 - momentum) / STEPS_PER_CAPTION_STEP,
        ]

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (G, C, B) of images (B, d) of unit length."""
        weight, caption_weight = self.parameters
        logits = (weight.flatten(0, 1) @ images.T).view(*caption_weight.shape, -1)
        return logits.addcmul_(caption_weight[:, :, None], self.texts @ images.T)

    def losses(
        self, images: Tensor, labels: Tensor, smoothing: float
    ) -> tuple[Tensor, list[Tensor]]:
        """Return mean losses (G,) for images (B, d) and labels (B,), and the scaled gradients.

        There is one gradient per parameter, of its shape.
        """
        losses, gradients = cross_entropy(self.logits(images), labels, smoothing)
        caption_gradient = (gradients * (self.texts @ images.T)).sum(dim=2)
        weight_gradient = (gradients.flatten(0, 1) @ images).view_as(self.parameters[0])
        return losses, [weight_gradient * self.steps[0], caption_gradient * self.steps[1]]

    def get_trained_weights(self, index: int) -> dict[str, Tensor]:
        """Return one trial's classifier as a layer: weight (d, C) and bias (C,), which is zero."""
        weight, caption_weight = (parameter[index] for parameter in self.parameters)
        layer = (weight + caption_weight[:, None] * self.texts).T
        return {"weight": layer.clone(), "bias": torch.zeros(len(weight)).to(weight)}
