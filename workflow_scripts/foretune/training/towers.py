"""The towers of an open_clip model, and the attention in their transformer blocks.

Attention is found by its modules, not by their full names: open_clip's has an `in_proj_weight`
(CLIP, CoCa, every text tower), timm's has a `qkv` (SigLIP's image tower) or `q_proj`, `k_proj` and
`v_proj` (EVA-02's). The attention of pooling heads is not in a block and is not adapted.
"""

import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

TOWERS = {"both": ("image", "text"), "image": ("image",), "text": ("text",)}
SCALARS = ("logit_scale", "logit_bias")
# The name of a classifier that is trained as a part of the model; see `methods.lp_ft`.
TASK_HEAD = "task_head"


def get_tower(name: str) -> str | None:
    """Return the tower of a parameter or module, by its name in an open_clip model.

    Returns None for the logit scale and bias, for a classifier that is trained beside the towers,
    and for CoCa's text decoder, which generates captions and takes no part in classification.
    """
    if name.startswith("visual."):
        return "image"
    head = name.split(".")[0]
    return None if head in (*SCALARS, TASK_HEAD, "text_decoder") else "text"


@dataclass
class Projection:
    """One weight of an attention's projections, and its rows by what they give.

    owner: the module that has the weight. name: the owner's name within the block. weight: the
    weight's name within the owner. rows: of queries, keys and values ("q", "k", "v"), or of the
    output ("o").
    """

    owner: nn.Module
    name: str
    weight: str
    rows: dict[str, slice]


def find_in_projections(block: nn.Module) -> list[Projection]:
    """Return the in-projection of a transformer block's attention, or an empty list."""
    attention: Any = getattr(block, "attn", None)
    in_projection = getattr(attention, "in_proj_weight", None)
    if isinstance(in_projection, Tensor):
        return [Projection(attention, "attn", "in_proj_weight", split_qkv_rows(in_projection))]
    qkv = getattr(attention, "qkv", None)
    if isinstance(qkv, nn.Linear):
        return [Projection(qkv, "attn.qkv", "weight", split_qkv_rows(qkv.weight))]
    return [
        Projection(getattr(attention, f"{part}_proj"), f"attn.{part}_proj", "weight",
                   {part: slice(None)})
        for part in "qkv"
        if isinstance(getattr(attention, f"{part}_proj", None), nn.Linear)
    ]  # fmt: skip


def find_out_projection(block: nn.Module) -> Projection:
    """Return the output projection of a transformer block's attention."""
    attention: Any = block.attn
    name = "out_proj" if hasattr(attention, "out_proj") else "proj"
    return Projection(getattr(attention, name), f"attn.{name}", "weight", {"o": slice(None)})


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
