"""The settings that a fine-tuning method reads, and the trainable model that it returns."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict, cast

from torch import nn

from foretune.core.entries import Recipe, Trial


class MethodSettings(TypedDict):
    """The settings on which it depends what a method trains, from its recipe and a trial."""

    towers: str  # "both", "image" or "text"
    rank: NotRequired[int]
    alpha: NotRequired[float]
    projections: NotRequired[str]  # "qv", "qkv" or "qkvo"
    dropout: NotRequired[float]  # of the input of LoRA's updates
    head: NotRequired[list[int]]  # classes C and dimensions d of a classifier that is trained too


def get_method_settings(recipe: Recipe, trial: Trial) -> MethodSettings:
    """Return the settings that a method needs, without all other keys."""
    settings = {**recipe, **trial}
    names = ("towers", "rank", "alpha", "projections", "dropout")
    return cast(MethodSettings, {name: settings[name] for name in names if name in settings})


@dataclass
class TrainableModel:
    """The parameters to train of a model that was prepared for training, by name.

    merge(): fold the trained parameters into the model's own weights, which makes it plain again.
    contrastive: train by the contrastive loss of a batch's images and captions.
    """

    parameters: dict[str, nn.Parameter]
    merge: Callable[[], None] = field(default=lambda: None)
    contrastive: bool = False
