"""CLIP-Adapter (Gao et al. 2021, arXiv:2110.04544), on both towers as in the first paper.

An adapter is two linear layers without bias, each followed by a ReLU, with d / reduction hidden
units between them. A raw embedding x becomes ratio * adapter(x) + (1 - ratio) * x, for images and
for captions. The logits are the cosines of the two times the model's logit scale, which is not
trained. (SigLIP's logit bias is the same for all classes and cancels out.)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from foretune.core.entries import Recipe, Trial
from foretune.core.errors import ForetuneError
from foretune.training.stacked_trials import cross_entropy

# Trials per stack: the tensors of 16 trials stay in a core's cache. With a mini encoder's vectors
# and batches of 128, 48 trials in three stacks take three quarters of the time of a single stack.
STACK_SIZE = 16


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
        image_down, image_up, text_down, text_up = self.parameters
        image = adapt_vectors(images, image_down, image_up, self.ratio)
        text = adapt_vectors(self.texts, text_down, text_up, self.ratio)
        return self.scale * torch.bmm(text, image.transpose(1, 2))

    def losses(
        self, images: Tensor, labels: Tensor, smoothing: float
    ) -> tuple[Tensor, list[Tensor]]:
        """Return mean losses (G,) for images (B, d) and labels (B,), and the gradients.

        There is one gradient per parameter, of its shape.
        """
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        logits = self.logits(images)
        losses, gradients = cross_entropy(logits.detach(), labels, smoothing)
        # A sum, since the gradient of anything else makes torch import SymPy, which takes a second.
        by_parameter = torch.autograd.grad(
            torch.vdot(logits.flatten(), gradients.flatten()), self.parameters
        )
        for parameter in self.parameters:  # the optimizer changes them in place
            parameter.requires_grad_(False)
        return losses, list(by_parameter)

    def get_trained_weights(self, index: int) -> dict[str, Tensor]:
        """Return a copy of one trial's matrices in torch.nn.Linear's layout, and the ratio."""
        image_down, image_up, text_down, text_up = (p[index] for p in self.parameters)
        return {
            "image.down": image_down.clone(), "image.up": image_up.T.clone(),
            "text.down": text_down.clone(), "text.up": text_up.T.clone(),
            "ratio": torch.tensor(self.ratio, dtype=torch.float64),
        }  # fmt: skip


def adapt_vectors(vectors: Tensor, down: Tensor, up: Tensor, ratio: float) -> Tensor:
    """Return what the adapters of G trials make of raw vectors (N, d), in unit length: (G, N, d).

    down, up: (G, h, d).
    """
    trials, units, _ = down.shape
    # One product for all trials, as (G * h, d), takes less time than G of them.
    hidden = (vectors @ down.flatten(0, 1).T).relu().view(-1, trials, units).transpose(0, 1)
    output = torch.bmm(hidden, up).relu()
    return F.normalize(ratio * output + (1 - ratio) * vectors, dim=2)


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
