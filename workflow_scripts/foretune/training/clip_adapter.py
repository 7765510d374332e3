"""CLIP-Adapter (Gao et al. 2021, arXiv:2110.04544), on both towers as in the first paper.

An adapter is two linear layers without bias, each followed by a ReLU, with d / reduction hidden
units between them. A raw embedding x becomes ratio * adapter(x) + (1 - ratio) * x, for images and
for captions. The logits are the cosines of the two times the model's logit scale, which is not
trained. (SigLIP's logit bias is the same for all classes and cancels out.)

The backward pass is written by hand and takes two thirds of autograd's time: dividing the small
matrix of logits by the vectors' norms makes normalizing the large tensors unnecessary.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from foretune.core.entries import Recipe, Trial
from foretune.core.errors import ForetuneError
from foretune.training.stacked_trials import cross_entropy

MIN_NORM = 1e-12  # as in torch.nn.functional.normalize
# Trials per stack: the tensors of 16 trials stay in a core's cache. With a mini encoder's vectors
# and batches of 128, 48 trials in three stacks take three quarters of the time of a single stack.
STACK_SIZE = 16


class AdaptedVectors(NamedTuple):
    """The adapted vectors of N raw ones by G trials, with what their gradients need."""

    hidden: Tensor  # hidden units (G, N, h)
    output: Tensor  # the adapter's output (G, N, d)
    vectors: Tensor  # adapted vectors (G, N, d), not of unit length
    norms: Tensor  # their norms (G, N)


class StackedAdapters:
    """The adapters of G trials with the same number h of hidden units, trained together.

    Parameters, each (G, h, d): down and up of the image tower, down and up of the text tower.
    All trials start from the same weights, drawn from the seed.

    Args:
        texts: raw caption embeddings (C, d).
        scale: the logit scale, as a factor.
        ratio: the adapter's share of an adapted vector.
    """

    def __init__(
        self, trials: list[Trial], hidden: int, texts: Tensor, scale: float, ratio: float, seed: int
    ):
        self.trials, self.texts, self.scale, self.ratio = trials, texts, scale, ratio
        width, generator = texts.shape[1], torch.Generator().manual_seed(seed)

        def draw(fan_in: int) -> Tensor:
            """Draw as torch.nn.Linear does: uniformly within 1 / sqrt(fan_in)."""
            drawn = torch.rand(hidden, width, generator=generator) * 2 - 1
            return (drawn / fan_in**0.5).to(texts.dtype).repeat(len(trials), 1, 1)

        self.parameters = [draw(fan_in) for fan_in in (width, hidden, width, hidden)]

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (G, C, B) of images (B, d)."""
        return self.forward(images)[0]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, AdaptedVectors, AdaptedVectors]:
        """Return the logits (G, C, B), their scales, and the adapted images and captions.

        A logit is its scale times the product of the adapted vectors.
        """
        image_down, image_up, text_down, text_up = self.parameters
        image = adapt_vectors(images, image_down, image_up, self.ratio)
        text = adapt_vectors(self.texts, text_down, text_up, self.ratio)
        scales = self.scale / (text.norms[:, :, None] * image.norms[:, None, :])
        logits = torch.bmm(text.vectors, image.vectors.transpose(1, 2)).mul_(scales)
        return logits, scales, image, text

    def losses(
        self, images: Tensor, labels: Tensor, smoothing: float
    ) -> tuple[Tensor, list[Tensor]]:
        """Return mean losses (G,) for images (B, d) and labels (B,), and the gradients.

        There is one gradient per parameter, of its shape.
        """
        logits, scales, image, text = self.forward(images)
        losses, gradients = cross_entropy(logits, labels, smoothing)
        gradients *= self.ratio  # the chain rule's factor for an adapter's output, applied early
        radial = gradients * logits
        gradients *= scales  # now for the products of vectors, before these are normalized
        _, image_up, _, text_up = self.parameters
        return losses, [
            *compute_adapter_gradients(
                images, image_up, image, text, gradients.transpose(1, 2), radial.sum(dim=1)
            ),
            *compute_adapter_gradients(
                self.texts, text_up, text, image, gradients, radial.sum(dim=2)
            ),
        ]

    def get_trained_weights(self, index: int) -> dict[str, Tensor]:
        """Return a copy of one trial's matrices in torch.nn.Linear's layout, and the ratio."""
        image_down, image_up, text_down, text_up = (p[index] for p in self.parameters)
        return {
            "image.down": image_down.clone(), "image.up": image_up.T.clone(),
            "text.down": text_down.clone(), "text.up": text_up.T.clone(),
            "ratio": torch.tensor(self.ratio, dtype=torch.float64),
        }  # fmt: skip


def adapt_vectors(vectors: Tensor, down: Tensor, up: Tensor, ratio: float) -> AdaptedVectors:
    """Return what the adapters of G trials, down and up (G, h, d), make of raw vectors (N, d)."""
    trials, units, _ = down.shape
    hidden = (vectors @ down.flatten(0, 1).T).relu_().view(-1, trials, units).transpose(0, 1)
    output = torch.bmm(hidden, up).relu_()
    mixed = torch.add((1 - ratio) * vectors, output, alpha=ratio)
    norms = torch.linalg.vector_norm(mixed, dim=2).clamp_(min=MIN_NORM)
    return AdaptedVectors(hidden, output, mixed, norms)


def compute_adapter_gradients(
    vectors: Tensor,
    up: Tensor,
    adapted: AdaptedVectors,
    others: AdaptedVectors,
    gradients: Tensor,
    radial: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of one tower's down and up (G, h, d).

    Args:
        vectors: the tower's raw vectors (N, d).
        adapted: these vectors, adapted.
        others: the M adapted vectors of the other tower.
        gradients: (G, N, M), of the products of this tower's vectors with the other's.
        radial: (G, N), the part of these gradients along each adapted vector. It is removed,
            because a vector's length has no effect on a cosine.
    """
    along = adapted.vectors * (radial / adapted.norms.square())[:, :, None]
    outer = torch.baddbmm(along, gradients, others.vectors, beta=-1)
    outer = torch.ops.aten.threshold_backward(outer, adapted.output, 0)  # the outer ReLU's
    inner = torch.bmm(outer, up.transpose(1, 2))
    inner = torch.ops.aten.threshold_backward(inner, adapted.hidden, 0)  # the inner ReLU's
    down = (inner.transpose(0, 1).flatten(1).T @ vectors).view_as(up)
    return down, torch.bmm(adapted.hidden.transpose(1, 2), outer)


def make_adapter_stacks(
    trials: list[Trial], texts: Tensor, scale: float, recipe: Recipe, seed: int
) -> list[StackedAdapters]:
    """Return the trials in stacks of one reduction each, for caption embeddings (C, d).

    Raises:
        ForetuneError: a reduction leaves no hidden unit.
    """
    width, stacks = texts.shape[1], []
    for reduction in sorted({trial["reduction"] for trial in trials}):
        if reduction > width:
            raise ForetuneError(
                f"methods.clip_adapter.reduction: {reduction} is more than the {width} dimensions "
                "of the embeddings"
            )
        same_size = [trial for trial in trials if trial["reduction"] == reduction]
        stacks += [
            StackedAdapters(
                same_size[start : start + STACK_SIZE],
                width // reduction,
                texts,
                scale,
                recipe["ratio"],
                seed,
            )
            for start in range(0, len(same_size), STACK_SIZE)
        ]
    return stacks
