"""LoRA (Hu et al. 2022) of the attention's projections."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from foretune.training.towers import (
    find_in_projections,
    find_out_projection,
    find_transformer_blocks,
)
from foretune.training.trainable import MethodSettings, TrainableModel


class LoraParametrization(nn.Module):
    """W -> W + alpha / rank * B A, on some rows of W (Hu et al. 2022, section 4.1).

    The frozen W is never written to: each call computes the sum anew from the same W.
    """

    def __init__(self, weight: Tensor, rows: dict[str, slice], rank: int, alpha: float):
        super().__init__()
        self.rows, self.scale, self.outputs = rows, alpha / rank, len(weight)
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

    def change_by_dropout(self, inputs: Tensor, dropout: float) -> Tensor:
        """Return what dropout of the updates' inputs (..., d) adds to the outputs (..., rows of W).

        Each part of the rows drops inputs of its own.
        """
        outputs = []
        for part, part_rows in self.rows.items():
            lora_A, lora_B = getattr(self, f"{part}_lora_A"), getattr(self, f"{part}_lora_B")
            change = F.dropout(inputs, dropout) - inputs
            outputs.append((part_rows, self.scale * (change @ lora_A.T) @ lora_B.T))
        changes = inputs.new_zeros(*inputs.shape[:-1], self.outputs).to(outputs[0][1].dtype)
        for part_rows, output in outputs:
            changes[..., part_rows] = output
        return changes


def lora(model: nn.Module, settings: MethodSettings) -> TrainableModel:
    """Train low-rank updates of the query and value projections, as in the first paper.

    With `projections: qkv`, the key projections have one too, and with `qkvo` also the output
    projections. `dropout` drops inputs of the updates, and none of the frozen weights, while the
    model is in training mode.
    """
    blocks = find_transformer_blocks(model, settings["towers"])
    adapted: list[tuple[nn.Module, str]] = []
    remove: list[Callable[[], None]] = []
    parameters = {}
    for block_name, block in blocks.items():
        for projection in [*find_in_projections(block), find_out_projection(block)]:
            rows = {
                part: part_rows
                for part, part_rows in projection.rows.items()
                if part in settings["projections"]
            }
            if rows:
                weight = getattr(projection.owner, projection.weight)
                update = LoraParametrization(weight, rows, settings["rank"], settings["alpha"])
                parametrize.register_parametrization(projection.owner, projection.weight, update)
                adapted.append((projection.owner, projection.weight))
                if dropout := settings.get("dropout", 0):
                    remove.append(add_dropout(projection.owner, update, dropout))
                for name, parameter in update.named_parameters():
                    parameters[f"{block_name}.{projection.name}.lora.{name}"] = parameter

    def merge() -> None:
        for remove_dropout in remove:
            remove_dropout()
        for owner, weight_name in adapted:
            parametrize.remove_parametrizations(owner, weight_name, leave_parametrized=True)

    return TrainableModel(parameters, merge)


def add_dropout(
    owner: nn.Module, update: LoraParametrization, dropout: float
) -> Callable[[], None]:
    """Drop inputs of an update in training mode; return a function that undoes this.

    Args:
        owner: a linear layer, or an attention with `in_proj_weight` that only attends to its own
            input: nn.MultiheadAttention, or open_clip's own from version 4 on.
    """
    if isinstance(owner, nn.Linear):

        def correct(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not layer.training:
                return output
            return output + update.change_by_dropout(inputs[0], dropout)

        return owner.register_forward_hook(correct).remove
    attention: Any = owner
    plain_forward, of_torch = attention.forward, isinstance(attention, nn.MultiheadAttention)

    def forward(query: Tensor, *others: Tensor, **options) -> Any:
        if not attention.training:
            return plain_forward(query, *others, **options)
        mask = options.get("attn_mask")
        if mask is not None and mask.dtype == torch.bool and of_torch:
            mask = ~mask  # True is not to attend there, and to attend elsewhere
        output = attend(attention, query, mask, update, dropout)
        return (output, None) if of_torch else output

    attention.forward = forward

    def remove() -> None:
        del attention.forward  # the class's own is found again

    return remove


def attend(
    attention: Any, inputs: Tensor, mask: Tensor | None,
    update: LoraParametrization, dropout: float,
) -> Tensor:  # fmt: skip
    """Return self-attention as nn.MultiheadAttention does, with dropout of the update's inputs.

    The module has no place between its in-projection and the attention.

    Args:
        inputs: (N, L, d), or (L, N, d) if the module is not `batch_first`.
        mask: True where to attend, or numbers to add.
    """
    projected = F.linear(inputs, attention.in_proj_weight, attention.in_proj_bias)
    projected = projected + update.change_by_dropout(inputs, dropout)
    batch_first = getattr(attention, "batch_first", True)
    if not batch_first:
        projected = projected.transpose(0, 1)
    query, key, value = (
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for part in projected.chunk(3, dim=-1)
    )
    if mask is not None:
        mask = mask if mask.dtype == torch.bool else mask.to(query.dtype)
        if mask.dim() == 3:  # one of each head of each row
            mask = mask.unflatten(0, (-1, attention.num_heads))
    attended = F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).flatten(2)
    output = attention.out_proj(attended)
    return output if batch_first else output.transpose(0, 1)
