"""Find a batch size that fits if a GPU ran out of memory."""

import math

import torch

from foretune.encoders.encode import DEVICE
from foretune.encoders.image_cache import load_batch
from foretune.training import distributed
from foretune.training.trainer import Trainer


def suggest_batch_size(trainer: Trainer) -> str:
    """Return a message for a GPU that ran out of memory, with a batch size that fits.

    The suggested size is the first that fits of half the batch, a quarter, and so on.
    """
    trainer.contrastive = False  # whose loss needs every rank; the other one takes as much memory
    size = trainer.recipe["batch_size"]
    problem = f"methods.{trainer.method}.batch_size: {size} images do not fit the GPU's memory"
    for smaller in (size >> shift for shift in range(1, size.bit_length())):
        rows = torch.zeros(math.ceil(smaller / distributed.world_size()), dtype=torch.long)
        try:
            torch.cuda.empty_cache()
            images = load_batch(trainer.images["train"], rows.numpy(), DEVICE)
            trainer.loss(trainer.preprocess.normalize(images), rows.to(DEVICE), rows).backward()
            return f"{problem}, but {smaller} do: set it to {smaller}"
        except torch.OutOfMemoryError:
            continue
    return f"{problem}, and neither does a single image: choose a smaller model"
