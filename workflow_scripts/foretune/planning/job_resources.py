"""What a job asks of a cluster, by the size of its model and data: memory and time.

Estimates, on the safe side for a GPU of some years ago; a job that fails is tried again with its
attempt times as much. Free of torch: the Snakefile imports it.
"""

import json
import re
from math import ceil, prod
from pathlib import Path

# Parameters by what an architecture's name says of its size, the largest first (open_clip's
# model_profile.csv); a name that says nothing is taken for a base model.
SIZES = {
    "EVA02-E": 5.0e9, "bigG": 2.6e9, "(gopt|-g-|giant)": 1.9e9, "xxlarge": 1.2e9,
    "-H-": 1.0e9, "(SO400M|so400m)": 0.9e9, "(-L-|[Ll]arge)": 0.66e9,
}  # fmt: skip
BASE = 0.26e9
# Images times parameters that a GPU trains in a second: 260 images/s of a ViT-B/16.
TRAINED = 4e10
ENCODED = 0.5  # of a training image's time: a third of its operations, but in float32
CORE = 10e9  # operations a second of a CPU's core
WIDTH = 768  # of embeddings, where it is not known
LIBRARIES = 3000  # MB of torch with CUDA, and of Snakemake, which starts each job twice


def count_parameters(spec: dict) -> float:
    """Number of a model's parameters, from its entry in the config, its weights or its name."""
    weights = Path(spec.get("folder", ""), "open_clip_model.safetensors")
    if weights.is_file():
        with open(weights, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return sum(prod(each["shape"]) for each in header.values() if "shape" in each)
    name = spec.get("architecture", spec.get("hub", ""))
    sizes = (size for pattern, size in SIZES.items() if re.search(pattern, name))
    return spec.get("parameters", next(sizes, BASE))


def get_memory_mb(
    data_mb: float, spec: dict | None = None, copies: int = 0, images_mb: float = 0
) -> int:
    """MB, for three times the files that are read and `copies` of a model's weights in float32.

    images_mb: of files of images, which are read a few at a time; what a job keeps of each is a
    vector or two, of a tenth of a photograph's size.
    """
    weights = copies * 4e-6 * count_parameters(spec) if spec else 0
    return ceil(LIBRARIES + 3 * data_mb + images_mb / 10 + weights)


def get_minutes(spec: dict, images: float) -> int:
    """Time to train a model on so many images in all; to encode one takes ENCODED of it."""
    return ceil(30 + images * count_parameters(spec) / TRAINED / 60)


def count_training_images(recipe: dict, trials: int, manifest: dict) -> float:
    """Images and captions that trials see; each step encodes the captions of all classes."""
    train, classes = manifest["splits"]["train"]["rows"], len(manifest["classes"])
    steps = ceil(train / recipe["batch_size"])
    return trials * recipe["epochs"] * (train + steps * classes)


def count_fitting_work(
    recipe: dict, trials: list[dict], train: int, classes: int, width: int = WIDTH
) -> float:
    """Operations to train a method's trials on `train` cached embeddings of so many dimensions."""
    hidden = [width / trial["reduction"] for trial in trials if "reduction" in trial]
    work = len(trials) * 6 * width * classes + 12 * width * sum(hidden)
    if hidden:  # captions pass their adapter in every step
        work *= 1 + classes / recipe["batch_size"] / 2
    return recipe["epochs"] * train * work
