"""Costs of a model's passes: operations that are counted, and speeds that are timed or assumed.

Operations and the bytes that backpropagation keeps are counted on PyTorch's `meta` device, which
computes nothing and needs no weights. Any architecture of open_clip takes a second, offline.
"""

import contextlib
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from foretune.core.entries import ModelSpec, Recipe, Trial
from foretune.core.errors import ForetuneError
from foretune.core.grid import expand_grid
from foretune.core.variants import get_base_method
from foretune.encoders.encode import DEVICE, encode_images
from foretune.encoders.hidden import watch_hidden_width
from foretune.encoders.imports import open_clip
from foretune.encoders.loading import encode_text, get_open_clip_name, load_model, load_model_folder
from foretune.encoders.pooled import remove_projection
from foretune.encoders.zero_shot import classification_logits
from foretune.planning.dataset_sizes import DatasetSize
from foretune.planning.job_resources import (
    BASE_PARAMETERS,
    CORE,
    count_parameters,
    count_step_captions,
)
from foretune.planning.job_times import (
    DECODING_SPEED,
    ENCODING_SPEED,
    STEP_FACTORS,
    TRAINING_SPEED,
)
from foretune.training.methods import make_trainable
from foretune.training.optim import make_optimizer
from foretune.training.towers import TASK_HEAD
from foretune.training.trainable import get_method_settings

CPU = DEVICE == "cpu"
CAPTION_TOKENS = 16  # assumed length of captions, to which `encode_text` cuts causal text towers
TIMED_IMAGES = 256


@dataclass
class ModelCost:
    """Costs of one model.

    `image` and `caption` are the operations of a forward pass for one of them; `image_bytes` and
    `caption_bytes` are what its backward pass needs to be kept, in float32.
    """

    image: float
    caption: float
    image_bytes: float
    caption_bytes: float
    parameters: float
    pixels: int  # side of a prepared image
    width: int  # dimensions of an embedding
    hidden_width: int  # dimensions of the hidden features, see encoders/hidden.py
    pooled_width: int  # of the output before the projection, see encoders/pooled.py


# For a model that cannot be built without a network.
VIT_B16_COST = ModelCost(35e9, 6e9, 350e6, 110e6, 150_000_000, 224, 512, 1536, 768)


@dataclass
class ModelEstimates:
    """The costs of a study's models, their speeds, and what these rest on.

    `speeds` has operations per second by (model, method) for training, and by (model, "encoding").
    Where a speed is missing, the one of `job_times` is assumed. `notes` are for the reader.
    """

    costs: dict[str, ModelCost]
    speeds: dict[tuple[str, str], float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def get_model_costs(
    study: dict, sizes: dict[str, DatasetSize], time_steps: bool, tflops: float | None
) -> ModelEstimates:
    """Count the operations of a study's models, and time or assume their speeds.

    Args:
        study: checked config.
        time_steps: whether models whose weights are on this machine are timed.
        tflops: a GPU's real speed in training, instead of TRAINING_SPEED.
    """
    estimates, timed = ModelEstimates({}), []
    training_speed = tflops * 1e12 if tflops else TRAINING_SPEED
    classes = statistics.median_low([size.classes for size in sizes.values()] or [0])
    for model, spec in study["models"].items():
        cost, note = count_or_assume_costs(model, spec)
        estimates.costs[model] = cost
        estimates.notes += [note] if note else []
        if tflops:
            estimates.speeds[model, "encoding"] = tflops * 1e12 * ENCODING_SPEED / TRAINING_SPEED
        weights = spec.get("folder", spec.get("pretrained"))  # a hub's model has neither
        if not time_steps or not weights or not Path(weights).exists():
            estimates.speeds |= {(model, method): training_speed for method in STEP_FACTORS}
            continue
        estimates.speeds[model, "encoding"] = cost.image / time_images(spec, TIMED_IMAGES)
        recipes = {get_base_method(name): recipe for name, recipe in study["methods"].items()}
        for method, recipe in recipes.items():
            if method in STEP_FACTORS and model in recipe["models"]:
                step = time_step(spec, method, recipe, expand_grid(recipe)[0], classes, cost.width)
                captions = count_step_captions(recipe, classes)
                forward = recipe["batch_size"] * cost.image + captions * cost.caption
                estimates.speeds[model, method] = STEP_FACTORS[method] * forward / step
        timed.append(model)
    estimates.notes += describe_speeds(list(estimates.costs), timed, training_speed)
    return estimates


def describe_speeds(models: list[str], timed: list[str], training_speed: float) -> list[str]:
    """Return notes on which models were timed, and which speeds are assumed for the others."""
    notes = []
    if timed:
        device = "one CPU thread of this machine" if CPU else "this machine's GPU"
        notes.append(
            f"{', '.join(timed)}: {TIMED_IMAGES} images and one step of each method, timed on "
            f"{device}"
        )
    if len(timed) < len(models):
        others = [model for model in models if model not in timed]
        encoding_speed = training_speed / TRAINING_SPEED * ENCODING_SPEED
        notes.append(
            f"{', '.join(others)}: operations counted without weights; a GPU with "
            f"{training_speed / 1e12:g} TFLOP/s in training and {encoding_speed / 1e12:g} TFLOP/s "
            "in encoding (an A100 is assumed; TFLOPS=... sets it)"
        )
    notes.append(
        f"assumed: {DECODING_SPEED} images/s of 224 pixels decoded, {CORE / 1e9:.0f} GFLOP/s per "
        "core"
    )
    return notes


def count_or_assume_costs(model: str, spec: ModelSpec) -> tuple[ModelCost, str | None]:
    """Return a model's costs, and a note if they are a ViT-B/16's, scaled by its parameters."""
    try:
        return count_costs(spec), None
    except ForetuneError as error:
        scale = count_parameters(spec) / BASE_PARAMETERS
        like = VIT_B16_COST
        cost = ModelCost(
            scale * like.image, scale * like.caption, scale * like.image_bytes,
            scale * like.caption_bytes, scale * like.parameters, like.pixels, like.width,
            like.hidden_width, like.pooled_width,
        )  # fmt: skip
        larger = f" with {scale:.1f} times the weights" if scale != 1 else ""
        return cost, f"{model}: {error}: assumed to be a ViT-B/16{larger}"


def count_costs(spec: ModelSpec) -> ModelCost:
    """Count the costs of a model without its weights.

    Raises ForetuneError if open_clip does not know the architecture without a network.
    """
    logging.disable(logging.WARNING)  # open_clip warns that there are no weights
    try:
        if "folder" in spec:
            model, _ = load_model_folder(Path(spec["folder"]), weights=False)
        else:
            with torch.device("meta"):
                model = open_clip.create_model(get_open_clip_name(spec), device="meta")
    except Exception as error:  # open_clip, timm and the hub raise many kinds
        raise ForetuneError(f"cannot be built on this machine ({error})") from None
    finally:
        logging.disable(logging.NOTSET)
    model = model.to("meta").eval()
    text: Any = getattr(model, "text", model)
    context = getattr(model, "context_length", None) or text.context_length
    pixels, _ = get_image_size(model)
    images = torch.zeros(2, 3, pixels, pixels, device="meta")
    tokens = torch.zeros(2, context, dtype=torch.long, device="meta")
    with watch_hidden_width(model.visual, len(images)) as widths:
        image, image_bytes, vectors = count_pass(model.encode_image, images)
    caption, caption_bytes, _ = count_pass(model.encode_text, tokens)
    causal = getattr(text, "attn_mask", None) is not None
    cut = min(1, CAPTION_TOKENS / context) if causal else 1
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return ModelCost(
        image, caption * cut, image_bytes, caption_bytes * cut, parameters, pixels,
        vectors.shape[1], widths[0] if widths else vectors.shape[1],
        find_pooled_width(model, images),
    )  # fmt: skip


def find_pooled_width(model: Any, images: torch.Tensor) -> int:
    """Return the width of what an image tower pools; the model is of no use afterwards."""
    with contextlib.suppress(ForetuneError):  # without a projection, it is the embedding's
        remove_projection(model.visual)
    return model.encode_image(images).shape[1]


def count_pass(encode: Callable, batch: torch.Tensor) -> tuple[float, float, torch.Tensor]:
    """Return the operations and the kept bytes per row of a batch, and the pass's result."""
    kept = 0

    def count_bytes(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        if not isinstance(tensor, nn.Parameter):
            kept += tensor.numel() * tensor.element_size()
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(count_bytes, lambda tensor: tensor):
        result = encode(batch)
    return counter.get_total_flops() / len(batch), kept / len(batch), result


def time_images(spec: ModelSpec, count: int) -> float:
    """Return the seconds to embed one of `count` images, on a GPU if there is one."""
    model, preprocess, _ = load_model(spec, DEVICE)
    images = torch.zeros(count, 3, *get_image_size(model), dtype=torch.uint8).numpy()
    return time_seconds(lambda: encode_images(model, preprocess, images)) / count


def time_step(
    spec: ModelSpec, method: str, recipe: Recipe, trial: Trial, classes: int, width: int
) -> float:
    """Return the seconds of one training step with the recipe's batch, after a step untimed.

    A frozen text tower does not run, as in training. `width` is that of an embedding.
    """
    model, preprocess, tokenizer = load_model(spec, DEVICE)
    tokens = tokenizer([f"a photo of a class {i}" for i in range(classes)]).to(DEVICE)
    settings = get_method_settings(recipe, trial)
    if "probe" in recipe:
        settings["head"] = [classes, width]
    trainable = make_trainable(model, method, settings)
    with torch.no_grad():
        frozen = None if count_step_captions(recipe, 1) else encode_text(model, tokens)
    optimizer = make_optimizer(recipe, trial, list(trainable.parameters.values()))
    size = recipe["batch_size"]
    images = torch.zeros(size, 3, *get_image_size(model), dtype=torch.uint8, device=DEVICE)
    labels = torch.zeros(size, dtype=torch.long, device=DEVICE)
    half = recipe["precision"] == "bf16" or (recipe["precision"] == "auto" and DEVICE == "cuda")
    model.train()

    def step() -> None:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
            vectors = model.encode_image(preprocess.normalize(images), normalize=False)
            if head := getattr(model, TASK_HEAD, None):
                logits = head(vectors)
            else:
                texts = encode_text(model, tokens) if frozen is None else frozen
                logits = classification_logits(model, vectors, texts)
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return time_seconds(step)


def get_image_size(model: Any) -> tuple[int, int]:
    """Return the height and width that an open_clip model's image tower takes."""
    size = model.visual.image_size
    return (size, size) if isinstance(size, int) else tuple(size)


def time_seconds(work: Callable[[], Any]) -> float:
    """Return the seconds of the second of two runs: the first allocates and compiles.

    On a CPU one thread is used, as a job has, and the process's own time is measured, which other
    work on the machine does not change.
    """
    if CPU:
        torch.set_num_threads(1)
    clock = time.process_time if CPU else time.perf_counter
    started = 0.0
    for _ in range(2):
        started = clock()
        work()
        if not CPU:
            torch.cuda.synchronize()
    return clock() - started
