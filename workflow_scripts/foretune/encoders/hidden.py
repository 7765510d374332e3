"""Features of images from a block inside the image tower, taken in the same forward pass.

The last blocks of an image tower keep what its captions told apart, and an earlier block may still
have what fine-tuning can bring back. Whether a probe on it comes closer to the fine-tuned accuracy
than one on the embedding depends on the tasks (benchmarks/forecast_error.md), so that forecasts
choose between the two.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# What open_clip, timm and torchvision call the lists of blocks or stages of an image tower.
BLOCK_LISTS = ("resblocks", "blocks", "stages", "layers")
STAGES = ("layer1", "layer2", "layer3", "layer4")  # of a ResNet
DEPTH = 3 / 4  # of the blocks; the third of four


def find_hidden_block(tower: nn.Module) -> nn.Module | None:
    """Return the block of an image tower at three quarters of its depth; None if it has no blocks.

    The longest list of blocks counts if the tower has several.
    """
    lists = [
        list(module)
        for name, module in tower.named_modules()
        if name.split(".")[-1] in BLOCK_LISTS and isinstance(module, nn.ModuleList | nn.Sequential)
    ]
    lists += [
        [getattr(module, name) for name in STAGES]
        for module in tower.modules()
        if all(isinstance(getattr(module, name, None), nn.Module) for name in STAGES)
    ]
    if not lists:
        return None
    blocks = max(lists, key=len)
    return blocks[max(0, int(len(blocks) * DEPTH) - 1)]


def pool_tokens(output: Tensor, batch: int) -> Tensor:
    """Return the mean and the standard deviation over the positions of a block's output.

    Args:
        output: (B, T, d) or (T, B, d) from a transformer, (B, d, H, W) or (B, H, W, d) from a
            convolutional tower.
        batch: B.

    Returns:
        (B, 2 d), float32.
    """
    if output.ndim == 4:
        channels_last = output.shape[3] > output.shape[1]
        tokens = output.flatten(1, 2) if channels_last else output.flatten(2).transpose(1, 2)
    else:
        tokens = output if output.shape[0] == batch else output.transpose(0, 1)
    tokens = tokens.float()
    return torch.cat([tokens.mean(dim=1), tokens.std(dim=1, correction=0)], dim=1)


@contextmanager
def watch_hidden_width(tower: nn.Module, batch: int) -> Iterator[list[int]]:
    """Yield a list that gets the width of the hidden features at each pass of `batch` images.

    It works on the device `meta`. The list stays empty for a tower without blocks.
    """
    widths: list[int] = []

    def record(_module, _inputs, output):
        tokens = output[0] if isinstance(output, tuple) else output
        widths.append(pool_tokens(tokens, batch).shape[1])

    block = find_hidden_block(tower)
    hook = block.register_forward_hook(record) if block is not None else None
    try:
        yield widths
    finally:
        if hook:
            hook.remove()


@contextmanager
def record_hidden_features(tower: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a list that gets the hidden features (B, 2 d) of each forward pass, on the CPU.

    A pass that fails adds nothing. The list stays empty for a tower without blocks.
    """
    features: list[Tensor] = []
    batches: list[int] = []
    of_this_pass: list[Tensor] = []

    def note_batch(_module, inputs):
        batches.append(len(inputs[0]))

    def record(_module, _inputs, output):
        tokens = output[0] if isinstance(output, tuple) else output
        of_this_pass[:] = [pool_tokens(tokens, batches[-1])]

    def keep(_module, _inputs, _output):
        features.extend(hidden.cpu() for hidden in of_this_pass)

    block = find_hidden_block(tower)
    if block is None:
        yield features
        return
    hooks = [
        tower.register_forward_pre_hook(note_batch),
        block.register_forward_hook(record),
        tower.register_forward_hook(keep),
    ]
    try:
        yield features
    finally:
        for hook in hooks:
            hook.remove()
