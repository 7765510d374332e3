"""Augmentation of a batch of images on its device: random crops and horizontal flips."""

import torch
import torch.nn.functional as F
from torch import Tensor

from foretune.core.entries import Augmentation


def augment(images: Tensor, settings: Augmentation, draws: Tensor) -> Tensor:
    """Crop a batch of images (B, 3, H, W) at random, scale the crops back, and flip half of them.

    Crops keep the images' aspect ratio.

    Args:
        draws: (4, B), uniform in [0, 1): each crop's area, its centre's x and y, and the flip.
    """
    if settings["crop"] == 1 and not settings["flip"]:
        return images
    draws = draws.to(images.device)
    side = (settings["crop"] + (1 - settings["crop"]) * draws[0]).sqrt()
    mirror = torch.where(draws[3] < 0.5, -1.0, 1.0) if settings["flip"] else torch.ones_like(side)
    # In units of half an image's side: at most 1 - side from the middle, the crop stays inside.
    centre = (2 * draws[1:3] - 1) * (1 - side)
    zero = torch.zeros_like(side)
    affine = torch.stack(
        [torch.stack([side * mirror, zero, centre[0]], dim=1),
         torch.stack([zero, side, centre[1]], dim=1)], dim=1,
    )  # fmt: skip
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
