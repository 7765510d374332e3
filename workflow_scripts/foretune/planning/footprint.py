"""Disk and memory that a study takes. Free of torch."""

from pathlib import Path
from typing import TYPE_CHECKING

from foretune.core.config import HEAD_METHODS, trains_on_embeddings
from foretune.core.grid import list_parts
from foretune.core.variants import get_base_method
from foretune.planning.dataset_sizes import DatasetSize, get_image_bytes
from foretune.planning.job_resources import TRAINED_SHARES

if TYPE_CHECKING:  # it imports torch
    from foretune.planning.model_costs import ModelCost

# Copies of the trained parameters that an optimizer keeps, besides weights and gradients.
OPTIMIZER_MOMENTS = {"adamw": 2, "sgd": 1}
SMALLEST_SHARE = 0.05  # that is allowed for a method's memory


def estimate_disk(
    study: dict, sizes: dict[str, DatasetSize], costs: dict[str, "ModelCost"],
    results: Path = Path("results"),
) -> dict[str, float]:  # fmt: skip
    """Return the bytes of each folder of `results` after all jobs."""
    methods, entries = study["methods"], study["datasets"] | study["forecast"]["datasets"]
    files, shown = 0.0, 0
    # A shard's job keeps no prepared images, but jobs that fine-tune and evaluate do.
    tuned = () if all(map(trains_on_embeddings, methods)) else study["datasets"]
    for name, size in sizes.items():
        dataset, _, shift = name.partition("/")
        entry, folder = entries[dataset], results / "datasets" / dataset
        if shift:
            entry, folder = entry["shifted"][shift], folder / "shifted" / shift
        files += get_image_bytes(entry, size, folder)
        shown += size.images if entry.get("shards", 1) == 1 or dataset in tuned else 0
    images = sum(size.images for size in sizes.values())
    vectors = sum(4 * cost.width for cost in costs.values()) * images
    # Only training images have hidden features; a shifted test has no training images.
    train = sum(size.train for size in sizes.values())
    vectors += sum(4 * cost.hidden_width for cost in costs.values()) * train
    pooled = {
        model
        for recipe in methods.values()
        if recipe.get("features") == "pooled"
        for model in recipe["models"]
    }
    vectors += sum(4 * costs[model].pooled_width for model in pooled) * images
    # Models with the same preprocessing share prepared images. Their image size stands for it.
    sides = {cost.pixels for cost in costs.values()}
    weights = sum(
        len(study["datasets"]) * len(list_parts(recipe)) * count_weight_bytes(costs[model], method)
        for method, recipe in methods.items()
        for model in recipe["models"]
    )
    return {
        "datasets (original images)": files,
        "embeddings": vectors,
        "prepared (may be deleted)": sum(3 * side * side for side in sides) * shown,
        "trials (trained weights)": weights,
    }


def count_weight_bytes(cost: "ModelCost", method: str) -> float:
    """Return the bytes of the trained weights that are kept per run and part.

    The best trial's file is a hard link, so that it takes no space of its own.
    """
    method = get_base_method(method)
    if method in HEAD_METHODS:
        return 4 * cost.width * 100
    if trains_on_embeddings(method):
        return 4 * cost.width * cost.width
    return 4 * cost.parameters * TRAINED_SHARES[method]


def estimate_gpu_memory(
    study: dict, sizes: dict[str, DatasetSize], costs: dict[str, "ModelCost"]
) -> dict[tuple[str, str], float]:
    """Return the bytes of a training step by (model, method).

    They hold weights, gradients, the optimizer's moments, and the activations that the backward
    pass needs.
    """
    needed = {}
    classes = max((sizes[name].classes for name in study["datasets"]), default=0)
    for method, recipe in study["methods"].items():
        for model in () if trains_on_embeddings(method) else recipe["models"]:
            cost = costs[model]
            share = TRAINED_SHARES[get_base_method(method)]
            trained = max(share, SMALLEST_SHARE) * cost.parameters
            images = recipe["batch_size"] / study["models"][model]["gpus"]
            activations = images * cost.image_bytes + classes * cost.caption_bytes
            moments = OPTIMIZER_MOMENTS[recipe["optimizer"]]
            fixed = 4 * (2 * cost.parameters + (1 + moments) * trained)
            # Activations are counted in float32; mixed precision halves them.
            needed[model, method] = fixed + activations / (1 + (recipe["precision"] != "fp32"))
    return needed
