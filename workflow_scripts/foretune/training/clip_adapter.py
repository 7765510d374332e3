"""CLIP-Adapter (Gao et al. 2021, arXiv:2110.04544), on both towers as in the first paper.

An adapter is two linear layers without bias, each followed by a ReLU, through d / reduction
hidden units. A raw embedding x becomes ratio * adapter(x) + (1 - ratio) * x, on the side of the
images and on that of the captions; the logits are their cosines times the model's logit scale,
which stays as it is. (SigLIP's logit bias is the same for all classes and cancels out.)

The backward pass is written out: it takes two thirds of autograd's time, since nothing is
normalized that a division of the small logits normalizes as well.
"""

import torch
from torch import Tensor

from foretune.core.errors import ForetuneError
from foretune.training.stacked_trials import cross_entropy

MIN_NORM = 1e-12  # as in torch.nn.functional.normalize
# Trials in a stack: what 16 of them hold stays in a core's cache. With a mini encoder's vectors and
# batches of 128, 48 trials in three stacks take three quarters of the time that they take in one.
STACK_SIZE = 16


class StackedAdapters:
    """The adapters of G trials with one number h of hidden units, trained together.

    Parameters, each (G, h, d): down and up of the image tower, down and up of the text tower.
    All trials start from the same weights, drawn from the seed.
    texts: raw caption embeddings (C, d); scale: the logit scale, a factor.
    """

    def __init__(self, trials: list[dict], hidden: int, texts: Tensor, scale, ratio, seed: int):
        self.trials, self.texts, self.scale, self.ratio = trials, texts, scale, ratio
        width, generator = texts.shape[1], torch.Generator().manual_seed(seed)

        def draw(fan_in: int) -> Tensor:
            """What torch.nn.Linear draws: uniform within 1 / sqrt(fan_in)."""
            drawn = torch.rand(hidden, width, generator=generator) * 2 - 1
            return (drawn / fan_in**0.5).to(texts.dtype).repeat(len(trials), 1, 1)

        self.parameters = [draw(fan_in) for fan_in in (width, hidden, width, hidden)]

    def logits(self, images: Tensor) -> Tensor:
        """Logits (G, C, B) of images (B, d)."""
        return self.forward(images)[0]

    def forward(self, images: Tensor):
        """The logits, what they were scaled by, and each side's inner values for its gradients."""
        image = adapt_vectors(images, *self.parameters[:2], self.ratio)
        text = adapt_vectors(self.texts, *self.parameters[2:], self.ratio)
        scales = self.scale / (text[3][:, :, None] * image[3][:, None, :])
        logits = torch.bmm(text[2], image[2].transpose(1, 2)).mul_(scales)
        return logits, scales, image, text

    def losses(self, images: Tensor, labels: Tensor, smoothing: float):
        """Mean losses (G,) of images (B, d) and labels (B,), and each parameter's gradient."""
        logits, scales, image, text = self.forward(images)
        losses, gradients = cross_entropy(logits, labels, smoothing)
        gradients *= self.ratio  # that of each adapter's output, ahead of its large tensors
        radial = gradients * logits
        gradients *= scales  # those of the products of vectors that are not of unit length
        by_image, by_caption = gradients.transpose(1, 2), gradients
        return losses, [
            *compute_adapter_gradients(
                images, self.parameters[1], image, text, by_image, radial.sum(dim=1)
            ),
            *compute_adapter_gradients(
                self.texts, self.parameters[3], text, image, by_caption, radial.sum(dim=2)
            ),
        ]

    def get_trained_weights(self, number: int) -> dict[str, Tensor]:
        """A copy of one trial's matrices in torch.nn.Linear's layout, and the ratio."""
        image_down, image_up, text_down, text_up = (p[number] for p in self.parameters)
        return {
            "image.down": image_down.clone(), "image.up": image_up.T.clone(),
            "text.down": text_down.clone(), "text.up": text_up.T.clone(),
            "ratio": torch.tensor(self.ratio, dtype=torch.float64),
        }  # fmt: skip


def adapt_vectors(vectors: Tensor, down: Tensor, up: Tensor, ratio: float):
    """Adapted vectors (G, N, d) of raw ones (N, d), with down and up (G, h, d).

    Returns the hidden units (G, N, h), the adapter's output, the adapted vectors and their
    norms (G, N).
    """
    trials, units, _ = down.shape
    hidden = (vectors @ down.flatten(0, 1).T).relu_().view(-1, trials, units).transpose(0, 1)
    output = torch.bmm(hidden, up).relu_()
    mixed = torch.add((1 - ratio) * vectors, output, alpha=ratio)
    return hidden, output, mixed, torch.linalg.vector_norm(mixed, dim=2).clamp_(min=MIN_NORM)


def compute_adapter_gradients(vectors, up: Tensor, side, other, gradients: Tensor, radial: Tensor):
    """Gradients of one side's down and up (G, h, d), for its raw vectors (N, d).

    side, other: what `adapt_vectors` gave for this side and the other; gradients: (G, N, M), of the
    products of this side's N vectors with the other's M; radial: (G, N), what of them goes
    along a vector, whose length has no effect on a cosine.
    """
    hidden, output, mixed, norms = side
    along = mixed * (radial / norms.square())[:, :, None]
    outer = torch.baddbmm(along, gradients, other[2], beta=-1)
    outer = torch.ops.aten.threshold_backward(outer, output, 0)  # of the outer ReLU
    inner = torch.bmm(outer, up.transpose(1, 2))
    inner = torch.ops.aten.threshold_backward(inner, hidden, 0)
    down = (inner.transpose(0, 1).flatten(1).T @ vectors).view_as(up)
    return down, torch.bmm(hidden.transpose(1, 2), outer)


def make_adapter_stacks(trials, texts: Tensor, scale, recipe, seed) -> list[StackedAdapters]:
    """The trials in stacks of one reduction each, for texts (C, d).

    Raises ForetuneError, which names the key, where a reduction leaves no hidden unit.
    """
    width, stacks = texts.shape[1], []
    for reduction in sorted({trial["reduction"] for trial in trials}):
        if reduction > width:
            raise ForetuneError(
                f"methods.clip_adapter.reduction: {reduction} of embeddings of {width} dimensions"
            )
        alike = [trial for trial in trials if trial["reduction"] == reduction]
        stacks += [
            StackedAdapters(some, width // reduction, texts, scale, recipe["ratio"], seed)
            for some in (alike[i : i + STACK_SIZE] for i in range(0, len(alike), STACK_SIZE))
        ]
    return stacks
