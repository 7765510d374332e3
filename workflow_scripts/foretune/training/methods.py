"""The fine-tuning methods: what each trains, and how the result becomes a plain model again.

A method is a function of the model and its settings that returns the parameters to train by name.
`make_trainable` freezes all others; `TrainableModel.merge` folds the trained parameters into the
model's own weights. Only trained parameters are saved.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from foretune.core.errors import ForetuneError
from foretune.training.base_weights import BaseWeights
from foretune.training.lora import lora
from foretune.training.towers import (
    SCALARS,
    TASK_HEAD,
    TOWERS,
    find_in_projections,
    find_transformer_blocks,
    get_tower,
)
from foretune.training.trainable import MethodSettings, TrainableModel


def full(model: nn.Module, settings: MethodSettings) -> TrainableModel:
    """Train every parameter of the towers, and the logit scale and bias."""
    towers = TOWERS[settings["towers"]]
    return TrainableModel({
        name: parameter
        for name, parameter in model.named_parameters()
        if get_tower(name) in towers or name in SCALARS
    })  # fmt: skip


def flyp(model: nn.Module, settings: MethodSettings) -> TrainableModel:
    """Train what `full` does, by the contrastive loss of pretraining (Goyal et al. 2023, FLYP)."""
    return replace(full(model, settings), contrastive=True)


def lp_ft(model: nn.Module, settings: MethodSettings) -> TrainableModel:
    """Train the image tower and a classifier, which starts as a probe (Kumar et al. 2022, LP-FT).

    The classifier is a layer on image embeddings of unit length. It is a part of the model until
    `merge`; `Trainer` fits the probe.
    """
    classes, width = settings["head"]
    scale = cast(Tensor, model.logit_scale)
    head = nn.Linear(width, classes, device=scale.device, dtype=scale.dtype)
    model.add_module(TASK_HEAD, head)
    image = {name: p for name, p in model.named_parameters() if get_tower(name) == "image"}
    of_head = {f"{TASK_HEAD}.{name}": parameter for name, parameter in head.named_parameters()}
    return TrainableModel({**image, **of_head}, merge=lambda: delattr(model, TASK_HEAD))


def bitfit(model: nn.Module, settings: MethodSettings) -> TrainableModel:
    """Train the biases of the transformer blocks, layer norms' included (Ben Zaken et al. 2022)."""
    return TrainableModel({
        f"{block_name}.{name}": parameter
        for block_name, block in find_transformer_blocks(model, settings["towers"]).items()
        for name, parameter in block.named_parameters()
        if name.endswith("bias")  # `in_proj_bias` too
    })  # fmt: skip


def attention(model: nn.Module, settings: MethodSettings) -> TrainableModel:
    """Train the attention's in-projection weights (A-CLIP in the second paper)."""
    return TrainableModel({
        f"{block_name}.{projection.name}.{projection.weight}": getattr(
            projection.owner, projection.weight
        )
        for block_name, block in find_transformer_blocks(model, settings["towers"]).items()
        for projection in find_in_projections(block)
    })  # fmt: skip


METHODS = {
    "full": full, "bitfit": bitfit, "attention": attention, "lora": lora, "clip_lora": lora,
    "flyp": flyp, "lp_ft": lp_ft,
}  # fmt: skip


def make_trainable(model: nn.Module, method: str, settings: MethodSettings) -> TrainableModel:
    """Freeze all parameters of the model except those that the method trains.

    Raises:
        ForetuneError: the method trains nothing in one of its towers.
    """
    model.requires_grad_(False)
    trainable = METHODS[method](model, settings)
    for tower in TOWERS[settings["towers"]]:
        if not any(get_tower(name) == tower for name in trainable.parameters):
            other = next(name for name in TOWERS["both"] if name != tower)
            raise ForetuneError(
                f"methods.{method}: finds nothing to train in the {tower} tower of this model; "
                f"leave the model out of methods.{method}.models, or try `towers: {other}`; the "
                "methods full, flyp and lp_ft fit every model"
            )
    for parameter in trainable.parameters.values():
        parameter.requires_grad_(True)
    return trainable


def describe_trained_weights(method: str, settings: MethodSettings) -> dict[str, str]:
    """Return the metadata of a file of trained weights: what `apply_trained_weights` must know."""
    # One key: safetensors writes several in a random order, and equal files should be identical.
    return {"foretune": json.dumps({"method": method, **settings}, sort_keys=True)}


def apply_trained_weights(
    model: nn.Module, path: Path | str, base: BaseWeights | None = None
) -> dict[str, Tensor]:
    """Turn a base model into a fine-tuned one by the trained weights of a file.

    base: keeps what is changed, so that it can restore the base model.

    Returns:
        The classifier of the model's own task, weight (C, d) and bias (C,), if the method trains
        one beside the towers, otherwise no tensors.

    Raises ForetuneError if the file is damaged or its method trains other tensors of this model.
    """
    try:
        with safe_open(path, "pt") as file:
            settings = json.loads(file.metadata()["foretune"])
        tensors, method = load_file(path), settings.pop("method")
    except Exception as error:  # safetensors has its own, and a key of the metadata may be missing
        raise ForetuneError(f"{path}: cannot be read ({error}); delete it and run again") from None
    trainable = make_trainable(model, method, settings)
    try:
        if mismatched := sorted(tensors.keys() ^ trainable.parameters.keys()):
            raise ForetuneError(f"{path}: not trained on this model: {', '.join(mismatched[:5])}")
        if base:
            base.keep(trainable.parameters)
        with torch.no_grad():
            for name, parameter in trainable.parameters.items():
                parameter.copy_(tensors[name])
    finally:
        trainable.merge()
    model.requires_grad_(False)
    return {
        name.removeprefix(f"{TASK_HEAD}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(TASK_HEAD)
    }
