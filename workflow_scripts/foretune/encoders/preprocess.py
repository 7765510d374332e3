"""The preprocessing of a model's images, in two steps of which the first is cached."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from foretune.encoders.imports import open_clip


class Preprocess:
    """The model's own preprocessing, split into two steps whose composition is exact.

    `Preprocess(model)(image)` resizes and crops an image to uint8 (3, H, W), which is cached.
    `normalize(batch)` converts such images (B, 3, H, W) to the model's input.
    """

    def __init__(self, model: nn.Module):
        visual: Any = model.visual
        self.config = open_clip.transform.PreprocessCfg(**visual.preprocess_cfg)
        *self._steps, normalize = open_clip.transform.image_transform_v2(
            self.config, is_train=False
        ).transforms
        self._mean = torch.tensor(normalize.mean).view(3, 1, 1)
        self._std = torch.tensor(normalize.std).view(3, 1, 1)

    def __call__(self, image: Image.Image) -> Tensor:
        result: Any = image
        for step in self._steps:
            result = step(result)
        return (result * 255).round().to(torch.uint8)  # exact, as images are resized in uint8

    def normalize(self, images: Tensor) -> Tensor:
        """Return uint8 images (B, 3, H, W) as the model's normalized float32 input."""
        mean, std = self._mean.to(images.device), self._std.to(images.device)
        return (images.float() / 255 - mean) / std
