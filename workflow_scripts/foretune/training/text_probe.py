"""Linear probes that start from the zero-shot classifier (Silva-Rodriguez et al. 2024's ZS-LP).

A class's weights start as the unit vector of its caption times the model's logit scale, and act on
image embeddings of unit length. At the start, the logits are therefore the model's own.
(arXiv:2312.12730, section 4.1. Wortsman et al. 2022 start the classifier that they fine-tune in the
same way.)
"""

from collections.abc import Callable
from typing import cast

import torch.nn.functional as F
from torch import Tensor

from foretune.core.entries import Recipe, Trial
from foretune.core.errors import ForetuneError
from foretune.core.grid import grid_points
from foretune.training.fit_stacks import LabelledVectors, fit_stacks
from foretune.training.stacked_trials import StackedLayers, TrialStack
from foretune.training.trials import JobSpec

# The settings of the probe that fine-tuning starts from, besides its grid and epochs.
PROBE_RECIPE = {
    "weight_decay": [0.0], "optimizer": "sgd", "momentum": 0.9, "batch_size": 128,
    "schedule": "constant", "warmup_epochs": 0, "label_smoothing": 0,
}  # fmt: skip


class StackedTextProbes(StackedLayers):
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


def fit_text_probe(
    job: JobSpec, data: dict[str, LabelledVectors], texts: Tensor, scale: float,
    log: Callable[[str], object],
) -> dict[str, Tensor]:  # fmt: skip
    """Return the layer of the best text probe, as the start of fine-tuning.

    It is fitted by SGD with the settings PROBE_RECIPE and those of `probe` in the job's recipe.

    Args:
        data: the raw image embeddings of "train" and "val".
        texts: raw caption embeddings (C, d).
        scale: the logit scale, as a factor.

    Raises:
        ForetuneError: every learning rate diverges.
    """
    probe = job.recipe["probe"]
    recipe = cast(Recipe, {**PROBE_RECIPE, **probe})
    trials = grid_points(recipe)
    unit = {split: part._replace(vectors=F.normalize(part.vectors)) for split, part in data.items()}
    name = f"{job.run['dataset']} probe of {job.run['method']}"
    stacks: list[TrialStack] = [StackedTextProbes(trials, texts, scale)]
    fitted = fit_stacks(stacks, unit, recipe, job.seed, name, log)
    if fitted.best is None or fitted.trained_weights is None:
        raise ForetuneError(
            f"methods.{job.method}.probe.learning_rate: every one diverges; lower it"
        )
    log(f"{name}: validation {fitted.best['val_accuracy']:.3f}")
    return fitted.trained_weights
