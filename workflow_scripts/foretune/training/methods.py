"""The fine-tuning methods: what each trains, and how the result becomes a plain model again.

A method is a function of the model and its settings that returns the parameters to train by name.
`make_trainable` freezes all others; `TrainableModel.merge` folds the trained parameters into the
model's own weights. Only trained parameters are saved.

Attention is found by its modules, not by their full names: open_clip's has an `in_proj_weight`
(CLIP, CoCa, every text tower), timm's has a `qkv` (SigLIP's image tower) or `q_proj`, `k_proj` and
`v_proj` (EVA-02's). The attention of pooling heads is not in a block and is not adapted.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from foretune.core.entries import Recipe, Trial
from foretune.core.errors import ForetuneError
from foretune.encoders.imports import restore_compiler

TOWERS = {"both": ("image", "text"), "image": ("image",), "text": ("text",)}


def get_tower(name: str) -> str | None:
    """Return the tower of a parameter or module, by its name in an open_clip model.

    Returns None for the logit scale and bias, and for CoCa's text decoder, which generates captions
    and takes no part in classification.
    """
    if name.startswith("visual."):
        return "image"
    head = name.split(".")[0]
    return None if head in ("logit_scale", "logit_bias", "text_decoder") else "text"


class MethodSettings(TypedDict):
    """The settings on which it depends what a method trains, from its recipe and a trial."""

    towers: str  # "both", "image" or "text"
    rank: NotRequired[int]
    alpha: NotRequired[float]
    projections: NotRequired[str]  # "qv" or "qkvo"


def get_method_settings(recipe: Recipe, trial: Trial) -> MethodSettings:
    """Return the settings that a method needs, without all other keys."""
    settings = {**recipe, **trial}
    names = ("towers", "rank", "alpha", "projections")
    return cast(MethodSettings, {name: settings[name] for name in names if name in settings})


@dataclass
class InProjection:
    """One weight of an attention's in-projection, and its rows that give queries, keys and values.

    owner: the module that has the weight. name: the owner's name within the block. weight: the
    weight's name within the owner. rows: by "q", "k" and "v".
    """

    owner: nn.Module
    name: str
    weight: str
    rows: dict[str, slice]


def find_in_projections(block: nn.Module) -> list[InProjection]:
    """Return the in-projection of a transformer block's attention, or an empty list."""
    attention: Any = getattr(block, "attn", None)
    in_projection = getattr(attention, "in_proj_weight", None)
    if isinstance(in_projection, Tensor):
        return [InProjection(attention, "attn", "in_proj_weight", split_qkv_rows(in_projection))]
    qkv = getattr(attention, "qkv", None)
    if isinstance(qkv, nn.Linear):
        return [InProjection(qkv, "attn.qkv", "weight", split_qkv_rows(qkv.weight))]
    return [
        InProjection(getattr(attention, f"{part}_proj"), f"attn.{part}_proj", "weight",
                   {part: slice(None)})
        for part in "qkv"
        if isinstance(getattr(attention, f"{part}_proj", None), nn.Linear)
    ]  # fmt: skip


def split_qkv_rows(weight: Tensor) -> dict[str, slice]:
    """Return the rows of queries, keys and values in a fused weight (3 d, d)."""
    width = len(weight) // 3
    return {part: slice(i * width, (i + 1) * width) for i, part in enumerate("qkv")}


def find_transformer_blocks(model: nn.Module, towers: str = "both") -> dict[str, nn.Module]:
    """Return the blocks of these towers: numbered modules with an attention named `attn`."""
    return {
        name: module
        for name, module in model.named_modules()
        if re.search(r"\.\d+$", name) and get_tower(name) in TOWERS[towers]
        and find_in_projections(module)
    }  # fmt: skip


@dataclass
class TrainableModel:
    """The parameters to train of a model that was prepared for training, by name.

    merge(): fold the trained parameters into the model's own weights, which makes it plain again.
    restore(): undo the rounding errors that forward passes leave in the frozen weights.
    """

    parameters: dict[str, nn.Parameter]
    merge: Callable[[], None] = field(default=lambda: None)
    restore: Callable[[], None] = field(default=lambda: None)


def full(model: nn.Module, settings: MethodSettings) -> TrainableModel:
    """Train every parameter of the towers, and the logit scale and bias."""
    towers = TOWERS[settings["towers"]]
    return TrainableModel({
        name: parameter
        for name, parameter in model.named_parameters()
        if get_tower(name) in towers or name in ("logit_scale", "logit_bias")
    })  # fmt: skip


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


class LoraParametrization(nn.Module):
    """W -> W + alpha / rank * B A, on some rows of W (Hu et al. 2022, section 4.1).

    The frozen W is never written to: each call computes the sum anew from the same W.
    """

    def __init__(self, weight: Tensor, rows: dict[str, slice], rank: int, alpha: float):
        super().__init__()
        self.rows, self.scale = rows, alpha / rank
        for part, part_rows in rows.items():
            lora_A = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
            nn.init.kaiming_uniform_(lora_A, a=math.sqrt(5))
            lora_B = nn.Parameter(weight.new_zeros(len(weight[part_rows]), rank))
            self.register_parameter(f"{part}_lora_A", lora_A)
            self.register_parameter(f"{part}_lora_B", lora_B)

    def forward(self, weight: Tensor) -> Tensor:
        merged = weight.clone()
        for part, part_rows in self.rows.items():
            lora_A, lora_B = getattr(self, f"{part}_lora_A"), getattr(self, f"{part}_lora_B")
            merged[part_rows] += self.scale * lora_B @ lora_A
        return merged


def lora(model: nn.Module, settings: MethodSettings) -> TrainableModel:
    """Train low-rank updates of the query and value projections, as in the first paper.

    With `projections: qkvo`, use peft's LoRA of the query, key, value and output projections.
    """
    blocks = find_transformer_blocks(model, settings["towers"])
    if settings["projections"] == "qkvo":
        return peft_lora(model, blocks, settings)
    adapted: list[tuple[nn.Module, str]] = []
    parameters = {}
    for block_name, block in blocks.items():
        for projection in find_in_projections(block):
            rows = {part: part_rows for part, part_rows in projection.rows.items() if part in "qv"}
            if rows:
                weight = getattr(projection.owner, projection.weight)
                update = LoraParametrization(weight, rows, settings["rank"], settings["alpha"])
                parametrize.register_parametrization(projection.owner, projection.weight, update)
                adapted.append((projection.owner, projection.weight))
                for name, parameter in update.named_parameters():
                    parameters[f"{block_name}.{projection.name}.lora.{name}"] = parameter

    def merge() -> None:
        for owner, weight_name in adapted:
            parametrize.remove_parametrizations(owner, weight_name, leave_parametrized=True)

    return TrainableModel(parameters, merge)


def peft_lora(
    model: nn.Module, blocks: dict[str, nn.Module], settings: MethodSettings
) -> TrainableModel:
    """Train peft's LoRA; its adapter of nn.MultiheadAttention covers the output projection too.

    At every forward pass that adapter adds its update to the frozen weights and subtracts it
    again, which leaves a rounding error in them: `restore` removes it.
    """
    restore_compiler()  # peft imports it, and transformers: seconds that only this method pays
    from peft import LoraConfig, LoraModel

    targets: list[str] = []
    exact_weights: list[tuple[Any, Tensor, Tensor]] = []
    for name, block in blocks.items():
        attention_module: Any = block.attn
        if isinstance(attention_module, nn.MultiheadAttention):
            targets.append(f"{name}.attn")
            in_projection = attention_module.in_proj_weight.detach().clone()
            out_projection = attention_module.out_proj.weight.detach().clone()
            exact_weights.append((attention_module, in_projection, out_projection))
        else:
            targets += [f"{name}.{projection.name}" for projection in find_in_projections(block)]
            targets.append(f"{name}.attn.proj")
    config = LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],  # type: ignore[arg-type]  # annotated as int; floats work
        # A pattern: a name in a list would also match each module whose name ends with it, such as
        # `visual.transformer.resblocks.0.attn` for the text tower's `transformer.resblocks.0.attn`.
        target_modules="|".join(map(re.escape, targets)),
    )
    tuner = LoraModel(model, config, "default")

    def restore() -> None:
        # New parameters: a forward pass in inference mode leaves some that cannot be written to.
        for adapted, in_projection, out_projection in exact_weights:
            adapted.in_proj_weight = nn.Parameter(in_projection.clone(), requires_grad=False)
            out_layer = adapted.out_proj.base_layer
            out_layer.weight = nn.Parameter(out_projection.clone(), requires_grad=False)

    def merge() -> None:
        restore()
        tuner.merge_and_unload()

    parameters = {name: p for name, p in model.named_parameters() if "lora_" in name}
    return TrainableModel(parameters, merge, restore)


METHODS = {"full": full, "bitfit": bitfit, "attention": attention, "lora": lora}


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
                "method full fits every model"
            )
    for parameter in trainable.parameters.values():
        parameter.requires_grad_(True)
    return trainable


def describe_trained_weights(method: str, settings: MethodSettings) -> dict[str, str]:
    """Return the metadata of a file of trained weights: what `apply_trained_weights` must know."""
    # One key: safetensors writes several in a random order, and equal files should be identical.
    return {"foretune": json.dumps({"method": method, **settings}, sort_keys=True)}


def apply_trained_weights(model: nn.Module, path: Path | str) -> None:
    """Turn a base model into a fine-tuned one by the trained weights of a file.

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
        with torch.no_grad():
            for name, parameter in trainable.parameters.items():
                parameter.copy_(tensors[name])
    finally:
        trainable.merge()
    model.requires_grad_(False)
