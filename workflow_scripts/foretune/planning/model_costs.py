"""What a model's passes cost: counted without its weights, and timed where they lie here.

Operations and the bytes that backpropagation keeps are counted on PyTorch's `meta` device, which
computes nothing and needs no weights: any architecture of open_clip, in a second, offline.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from foretune.core.errors import ForetuneError
from foretune.encoders.encode import DEVICE, encode_images
from foretune.encoders.imports import open_clip
from foretune.encoders.loading import encode_text, get_open_clip_name, load_model, load_model_folder
from foretune.encoders.zero_shot import classification_logits
from foretune.training.methods import get_method_settings, make_trainable
from foretune.training.optim import make_optimizer

CPU = DEVICE == "cpu"
COUNTED_CAPTION = 16  # tokens to which a context is cut that may be (see models.encode_text)


@dataclass
class ModelCost:
    """Of one model: operations an image and a caption (forward), kept bytes for each, sizes."""

    image: float
    caption: float
    image_bytes: float
    caption_bytes: float
    parameters: int
    pixels: int
    width: int


def count_costs(spec: dict) -> ModelCost:
    """Raises ForetuneError where open_clip does not know the architecture without a network."""
    logging.disable(logging.WARNING)  # it warns that there are no weights
    try:
        if "folder" in spec:
            model, _ = load_model_folder(Path(spec["folder"]), weights=False)
        else:
            with torch.device("meta"):
                model = open_clip.create_model(get_open_clip_name(spec), device="meta")
    except Exception as error:  # open_clip, timm and hubs raise many kinds
        raise ForetuneError(f"cannot be built here ({error})") from None
    finally:
        logging.disable(logging.NOTSET)
    model = model.to("meta").eval()
    text = getattr(model, "text", model)
    context = getattr(model, "context_length", None) or text.context_length
    pixels = model.visual.image_size
    pixels = pixels if isinstance(pixels, int) else pixels[0]
    images = torch.zeros(2, 3, pixels, pixels, device="meta")
    tokens = torch.zeros(2, context, dtype=torch.long, device="meta")
    image, image_bytes, vectors = count_pass(model.encode_image, images)
    caption, caption_bytes, _ = count_pass(model.encode_text, tokens)
    causal = getattr(text, "attn_mask", None) is not None
    cut = min(1, COUNTED_CAPTION / context) if causal else 1
    count = sum(parameter.numel() for parameter in model.parameters())
    return ModelCost(
        image, caption * cut, image_bytes, caption_bytes * cut, count, pixels, vectors.shape[1]
    )


def count_pass(encode, batch: torch.Tensor) -> tuple[float, float, torch.Tensor]:
    """Operations and kept bytes for each of a batch's rows, and what comes out."""
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        if not isinstance(tensor, nn.Parameter):
            kept += tensor.numel() * tensor.element_size()
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = encode(batch)
    return counter.get_total_flops() / len(batch), kept / len(batch), found


def time_images(spec: dict, count: int) -> float:
    """Seconds that one of `count` images takes to embed, on a GPU where there is one."""
    model, preprocess, _ = load_model(spec, DEVICE)
    images = torch.zeros(count, 3, *get_image_size(model), dtype=torch.uint8).numpy()
    return time_seconds(lambda: encode_images(model, preprocess, images)) / count


def time_step(spec: dict, method: str, recipe: dict, trial: dict, classes: int) -> float:
    """Seconds of one training step with the recipe's batch, after one that is not timed."""
    model, preprocess, tokenizer = load_model(spec, DEVICE)
    tokens = tokenizer([f"a photo of a class {i}" for i in range(classes)]).to(DEVICE)
    trainable = make_trainable(model, method, get_method_settings(recipe, trial))
    optimizer = make_optimizer(recipe, trial, list(trainable.parameters.values()))
    size = recipe["batch_size"]
    images = torch.zeros(size, 3, *get_image_size(model), dtype=torch.uint8, device=DEVICE)
    labels = torch.zeros(size, dtype=torch.long, device=DEVICE)
    half = recipe["precision"] == "bf16" or (recipe["precision"] == "auto" and DEVICE == "cuda")
    model.train()

    def step() -> None:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
            vectors = model.encode_image(preprocess.normalize(images), normalize=False)
            logits = classification_logits(model, vectors, encode_text(model, tokens))
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return time_seconds(step)


def get_image_size(model: nn.Module) -> tuple[int, int]:
    size = model.visual.image_size
    return (size, size) if isinstance(size, int) else tuple(size)


def time_seconds(work) -> float:
    """Of the second run: the first allocates and compiles.

    On a CPU, of one thread, which is what a job has, and of its own time, which other work on the
    machine leaves as it is.
    """
    if CPU:
        torch.set_num_threads(1)
    clock = time.process_time if CPU else time.perf_counter
    for _ in range(2):
        started = clock()
        work()
        if not CPU:
            torch.cuda.synchronize()
    return clock() - started
