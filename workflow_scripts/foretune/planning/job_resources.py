"""Memory and time that a job asks of a cluster, by the size of its model and its data.

The estimates are on the safe side for a GPU that is some years old. A job that fails is tried again
with its attempt number times as much. Free of torch, because the Snakefile imports this module.
"""

import json
import re
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING

from foretune.core.entries import ModelSpec, Recipe, Trial

if TYPE_CHECKING:  # it imports pyarrow, which a dry run does not need
    from foretune.data.prepared import Manifest

# Number of parameters by a part of an architecture's name, largest first (open_clip's
# model_profile.csv). A name without any of these parts is taken for a base model.
PARAMETERS_BY_NAME = {
    "EVA02-E": 5.0e9, "bigG": 2.6e9, "(gopt|-g-|giant)": 1.9e9, "xxlarge": 1.2e9,
    "-H-": 1.0e9, "(SO400M|so400m)": 0.9e9, "(-L-|[Ll]arge)": 0.66e9,
}  # fmt: skip
BASE_PARAMETERS = 0.26e9
# Images times parameters that a GPU trains per second: 260 images/s of a ViT-B/16.
TRAINING_RATE = 4e10
# Time to encode an image over the time to train on it: a third of the operations, but in float32.
ENCODED = 0.5
PILOT_TESTED = 1000  # held-back images, at most, that a pilot is tested on after each epoch
CORE = 10e9  # operations per second of one CPU core
DEFAULT_WIDTH = 768  # dimensions of embeddings if they are not known
LIBRARIES_MB = 3000  # torch with CUDA, and Snakemake, which starts each job a second time


def count_parameters(spec: ModelSpec) -> float:
    """Return a model's number of parameters, from its weights, its name or its config entry.

    The weights are counted if they lie in a folder. Otherwise `parameters` in the entry counts,
    then the size that the name tells, then BASE_PARAMETERS.
    """
    weights = Path(spec.get("folder", ""), "open_clip_model.safetensors")
    if weights.is_file():
        with open(weights, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return sum(prod(tensor["shape"]) for tensor in header.values() if "shape" in tensor)
    name = spec.get("architecture", spec.get("hub", ""))
    sizes = (size for pattern, size in PARAMETERS_BY_NAME.items() if re.search(pattern, name))
    return spec.get("parameters", next(sizes, BASE_PARAMETERS))


def get_memory_mb(
    data_mb: float, spec: ModelSpec | None = None, copies: int = 0, images_mb: float = 0
) -> int:
    """Return the MB that a job needs.

    Args:
        data_mb: size of the files that are read whole; three times as much is allowed for them.
        spec: the model of which the job holds `copies` of the weights in float32.
        images_mb: size of files of images, which are read a few at a time. What stays of each is
            a vector or two, a tenth of a photograph's size.
    """
    weights = copies * 4e-6 * count_parameters(spec) if spec else 0
    return ceil(LIBRARIES_MB + 3 * data_mb + images_mb / 10 + weights)


def get_minutes(spec: ModelSpec, images: float) -> int:
    """Return the minutes to train a model on so many images; encoding takes ENCODED of that."""
    return ceil(30 + images * count_parameters(spec) / TRAINING_RATE / 60)


def count_training_images(recipe: Recipe, trials: int, manifest: "Manifest") -> float:
    """Return how many images and captions the trials see.

    Each training step encodes the captions of all classes.
    """
    train, classes = manifest["splits"]["train"]["rows"], len(manifest["classes"])
    steps = ceil(train / recipe["batch_size"])
    return trials * recipe["epochs"] * (train + steps * classes)


def count_pilot_images(recipe: Recipe, steps: int, manifest: "Manifest") -> float:
    """Return how many images and captions the steps of a pilot see, and its tests encode."""
    tested = ENCODED * PILOT_TESTED * recipe["epochs"]
    return steps * (recipe["batch_size"] + len(manifest["classes"])) + tested


def count_fitting_work(
    recipe: Recipe, trials: list[Trial], train: int, classes: int, width: int = DEFAULT_WIDTH
) -> float:
    """Return the operations to train a method's trials on cached embeddings.

    There are `train` embeddings of `width` dimensions.
    """
    hidden = [width / trial["reduction"] for trial in trials if "reduction" in trial]
    work = len(trials) * 6 * width * classes + 12 * width * sum(hidden)
    if hidden:  # captions pass their adapter in every step
        work *= 1 + classes / recipe["batch_size"] / 2
    return recipe["epochs"] * train * work
