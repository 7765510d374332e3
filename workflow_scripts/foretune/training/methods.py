"""The fine-tuning methods: what each trains, and how that becomes a plain model again.

A method is a function of the model, its transformer blocks and its settings that returns the
parameters to train by name; all others are frozen. `make_trainable` calls it, `Attached.merge` folds
what was trained into the model's own weights, and only what was trained is saved.

Blocks and projections are found by module, not by name: open_clip's attention has an
`in_proj_weight` (CLIP, CoCa, every text tower), timm's a `qkv` (SigLIP's image tower) or
`q_proj`, `k_proj` and `v_proj` (EVA-02's). The pooling heads' attention is in no block.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from foretune.core.errors import ForetuneError
from foretune.encoders.imports import restore_compiler

TOWERS = {"both": ("image", "text"), "image": ("image",), "text": ("text",)}


def get_tower(name: str) -> str | None:
    """The tower that a parameter or module belongs to by its name in an open_clip model.

    None for the logit scale and bias, and for CoCa's text decoder, which writes captions and
    takes no part in classification.
    """
    if name.startswith("visual."):
        return "image"
    head = name.split(".")[0]
    return None if head in ("logit_scale", "logit_bias", "text_decoder") else "text"


@dataclass
class InProjection:
    """One weight of an attention's in-projection, and the rows of it that make q, k and v."""

    owner: nn.Module
    name: str
    weight: str
    rows: dict[str, slice]


def find_in_projections(block: nn.Module) -> list[InProjection]:
    """The in-projection of a transformer block's attention; empty where there is none."""
    attention = getattr(block, "attn", None)
    fused = getattr(attention, "in_proj_weight", None)
    if isinstance(fused, Tensor):
        return [InProjection(attention, "attn", "in_proj_weight", split_qkv_rows(fused))]
    if isinstance(getattr(attention, "qkv", None), nn.Linear):
        return [
            InProjection(attention.qkv, "attn.qkv", "weight", split_qkv_rows(attention.qkv.weight))
        ]
    return [
        InProjection(getattr(attention, f"{part}_proj"), f"attn.{part}_proj", "weight",
                   {part: slice(None)})
        for part in "qkv"
        if isinstance(getattr(attention, f"{part}_proj", None), nn.Linear)
    ]  # fmt: skip


def split_qkv_rows(weight: Tensor) -> dict[str, slice]:
    width = len(weight) // 3
    return {part: slice(i * width, (i + 1) * width) for i, part in enumerate("qkv")}


def find_transformer_blocks(model: nn.Module, towers: str = "both") -> dict[str, nn.Module]:
    """The blocks of the named towers: numbered modules with an attention called `attn`."""
    return {
        name: module
        for name, module in model.named_modules()
        if re.search(r"\.\d+$", name) and get_tower(name) in TOWERS[towers]
        and find_in_projections(module)
    }  # fmt: skip


@dataclass
class TrainableModel:
    """A model prepared for training.

    trained: the parameters to train, by name. merge(): make the model plain again, with what was
    trained in its own weights. restore(): undo the rounding that the frozen weights have taken.
    """

    trained: dict[str, nn.Parameter]
    merge: Callable[[], None] = field(default=lambda: None)
    restore: Callable[[], None] = field(default=lambda: None)


def full(model: nn.Module, settings: dict) -> TrainableModel:
    """Every parameter of the towers, and the logit scale and bias."""
    towers = TOWERS[settings["towers"]]
    return TrainableModel({
        name: parameter
        for name, parameter in model.named_parameters()
        if get_tower(name) in towers or name in ("logit_scale", "logit_bias")
    })  # fmt: skip


def bitfit(model: nn.Module, settings: dict) -> TrainableModel:
    """The bias terms of the transformer blocks (Ben Zaken et al. 2022), layer norms' included."""
    return TrainableModel({
        f"{name}.{inner}": parameter
        for name, block in find_transformer_blocks(model, settings["towers"]).items()
        for inner, parameter in block.named_parameters()
        if re.search(r"bias$", inner)  # `in_proj_bias` too
    })  # fmt: skip


def attention(model: nn.Module, settings: dict) -> TrainableModel:
    """The attention's in-projection weights (A-CLIP in the second paper)."""
    return TrainableModel({
        f"{name}.{projection.name}.{projection.weight}": getattr(
            projection.owner, projection.weight
        )
        for name, block in find_transformer_blocks(model, settings["towers"]).items()
        for projection in find_in_projections(block)
    })  # fmt: skip


class LoraParametrization(nn.Module):
    """W -> W + alpha / rank * up down, on some rows of W (Hu et al. 2022, section 4.1).

    The frozen W is never written to: each call computes the sum anew from the same W.
    """

    def __init__(self, weight: Tensor, rows: dict[str, slice], rank: int, alpha: float):
        super().__init__()
        self.rows, self.scale = rows, alpha / rank
        for part, where in rows.items():
            down = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))
            up = nn.Parameter(weight.new_zeros(len(weight[where]), rank))
            self.register_parameter(f"{part}_lora_A", down)
            self.register_parameter(f"{part}_lora_B", up)

    def forward(self, weight: Tensor) -> Tensor:
        merged = weight.clone()
        for part, where in self.rows.items():
            up, down = getattr(self, f"{part}_lora_B"), getattr(self, f"{part}_lora_A")
            merged[where] += self.scale * up @ down
        return merged


def lora(model: nn.Module, settings: dict) -> TrainableModel:
    """Low-rank updates of the query and value projections, as the paper's authors have them.

    With `projections: qkvo`, peft's: of query, key, value and output projection.
    """
    blocks = find_transformer_blocks(model, settings["towers"])
    if settings["projections"] == "qkvo":
        return peft_lora(model, blocks, settings)
    adapted, trained = [], {}
    for name, block in blocks.items():
        for projection in find_in_projections(block):
            rows = {part: where for part, where in projection.rows.items() if part in "qv"}
            if rows:
                weight = getattr(projection.owner, projection.weight)
                update = LoraParametrization(weight, rows, settings["rank"], settings["alpha"])
                parametrize.register_parametrization(projection.owner, projection.weight, update)
                adapted.append((projection.owner, projection.weight))
                for inner, parameter in update.named_parameters():
                    trained[f"{name}.{projection.name}.lora.{inner}"] = parameter

    def merge() -> None:
        for owner, weight in adapted:
            parametrize.remove_parametrizations(owner, weight, leave_parametrized=True)

    return TrainableModel(trained, merge)


def peft_lora(model: nn.Module, blocks: dict[str, nn.Module], settings: dict) -> TrainableModel:
    """peft's LoRA; its adapter of nn.MultiheadAttention covers the output projection too.

    At every forward pass that adapter adds its update to the frozen weights and subtracts it
    again, which leaves a rounding error behind: `restore` takes it away.
    """
    restore_compiler()  # which peft asks for, and transformers: seconds, so not at every start
    from peft import LoraConfig, LoraModel

    targets, rounded = [], []
    for name, block in blocks.items():
        if isinstance(block.attn, nn.MultiheadAttention):
            targets.append(f"{name}.attn")
            exact = block.attn.in_proj_weight.detach(), block.attn.out_proj.weight.detach()
            rounded.append((block.attn, [tensor.clone() for tensor in exact]))
        else:
            targets += [f"{name}.{projection.name}" for projection in find_in_projections(block)]
            targets.append(f"{name}.attn.proj")
    config = LoraConfig(r=settings["rank"], lora_alpha=settings["alpha"], target_modules=targets)
    tuner = LoraModel(model, config, "default")

    def restore() -> None:
        with torch.no_grad():
            for frozen, (in_projection, out_projection) in rounded:
                frozen.in_proj_weight.copy_(in_projection)
                frozen.out_proj.base_layer.weight.copy_(out_projection)

    def merge() -> None:
        restore()
        tuner.merge_and_unload()

    trained = {name: p for name, p in model.named_parameters() if "lora_" in name}
    return TrainableModel(trained, merge, restore)


METHODS = {"full": full, "bitfit": bitfit, "attention": attention, "lora": lora}


def make_trainable(model: nn.Module, method: str, settings: dict) -> TrainableModel:
    """Freeze the model but for what the method trains.

    settings: the method's entry of the config, with the trial's rank where it has one.
    Raises ForetuneError where the method trains nothing in one of its towers.
    """
    model.requires_grad_(False)
    attached = METHODS[method](model, settings)
    for tower in TOWERS[settings["towers"]]:
        if not any(get_tower(name) == tower for name in attached.trained):
            raise ForetuneError(
                f"methods.{method}: finds nothing to train in the {tower} tower of this model; "
                f"leave the model out of methods.{method}.models"
            )
    for parameter in attached.trained.values():
        parameter.requires_grad_(True)
    return attached


def describe_trained_weights(method: str, settings: dict) -> dict[str, str]:
    """What `apply_trained_weights` must know beside the trained tensors, for their file's metadata."""
    names = ("towers", "rank", "alpha", "projections")
    known = {name: settings[name] for name in names if name in settings}
    # One key: safetensors writes several in a random order, and equal files are to be equal.
    return {"foretune": json.dumps({"method": method, **known}, sort_keys=True)}


def apply_trained_weights(model: nn.Module, path: Path | str) -> None:
    """Put the trained weights of a file into a base model, which they make a tuned one.

    Raises ForetuneError where the file's tensors are not those that its method trains here.
    """
    with safe_open(path, "pt") as file:
        described = json.loads(file.metadata()["foretune"])
    tensors = load_file(path)
    attached = make_trainable(model, described.pop("method"), described)
    try:
        odd = sorted(tensors.keys() ^ attached.trained.keys())
        if odd:
            raise ForetuneError(f"{path}: not trained on this model: {', '.join(odd[:5])}")
        with torch.no_grad():
            for name, parameter in attached.trained.items():
                parameter.copy_(tensors[name])
    finally:
        attached.merge()
    model.requires_grad_(False)
