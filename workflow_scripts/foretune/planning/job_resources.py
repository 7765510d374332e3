"""Memory and time that a job asks of a cluster, by the size of its model and its data.

The estimates are on the safe side for a GPU that is some years old. A job that fails is tried again
with its attempt number times as much. Free of torch, because the Snakefile imports this module.
"""

import csv
import json
import os
import re
from functools import cache
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from foretune.core.entries import ModelSpec, Recipe, Trial
from foretune.core.variants import get_base_method

if TYPE_CHECKING:  # it imports pyarrow, which a dry run does not need
    from foretune.data.prepared import Manifest

# Parameters, and operations of an image and a caption, by open_clip's name of an architecture.
# `workflow_scripts/count_architectures.py` counts them.
ARCHITECTURES = Path(__file__).with_name("architectures.csv")
# Parameters of a hub's model whose name has no architecture of open_clip, by a word in its name.
PARAMETERS_BY_WORD = {
    "(bigg|gigantic)": 2.6e9, "(gopt|giant)": 1.9e9, "(xxlarge|huge)": 1.2e9, "so400m": 0.9e9,
    "large": 0.66e9,
}  # fmt: skip
BASE_PARAMETERS = 0.26e9
# Share of a model's parameters that a method trains, and so of the bytes of its trained weights.
TRAINED_SHARES = {
    "full": 1, "flyp": 1, "lp_ft": 0.6, "attention": 0.25, "bitfit": 0.002, "lora": 0.01,
    "clip_lora": 0.01,
}  # fmt: skip
OPERATIONS_PER_PARAMETER = 235  # of an image's forward pass by a ViT-B/16
TRAINING_SPEED = 27e12  # operations per second of a GPU: 260 images/s of a ViT-B/16
# Time to encode an image over the time to train on it: a third of the operations, but in float32.
ENCODED = 0.5
PILOT_TESTED = 1000  # held-back images, at most, that a pilot is tested on after each epoch
CORE = 10e9  # operations per second of one CPU core
DEFAULT_WIDTH = 768  # dimensions of embeddings if they are not known
POOLED_WIDTH = 2048  # dimensions of pooled outputs
LIBRARIES_MB = 3000  # torch with CUDA, and Snakemake, which starts each job a second time


class Architecture(NamedTuple):
    """Size of an architecture: its parameters, and the operations of forward passes."""

    parameters: int
    image: int
    caption: int


@cache
def read_architectures() -> dict[str, Architecture]:
    """Return the sizes of open_clip's architectures, by name."""
    with open(ARCHITECTURES, newline="") as file:
        rows = csv.DictReader(file)
        return {
            row.pop("architecture"): Architecture(**{k: int(v) for k, v in row.items()})
            for row in rows
        }


def find_architecture(spec: ModelSpec) -> Architecture | None:
    """Return the size of a model's architecture, which the name of a hub's model may contain."""
    known = read_architectures()
    if "hub" not in spec:
        return known.get(spec.get("architecture", ""))
    name = spec["hub"].casefold()
    contained = [other for other in known if other.casefold() in name]
    return known[max(contained, key=len)] if contained else None


def find_weights(spec: ModelSpec) -> Path | None:
    """Return the safetensors file of a model in a folder or in the hub's cache, if there is one."""
    folders = [Path(spec["folder"])] if "folder" in spec else []
    if "hub" in spec:  # huggingface_hub knows the folder, but each dry run would import it
        home = os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface"
        cache_folder = Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub"))
        repository = "models--" + spec["hub"].removeprefix("hf-hub:").replace("/", "--")
        folders = [*cache_folder.glob(f"{repository}/snapshots/*")]
    files = [folder / "open_clip_model.safetensors" for folder in folders]
    return next(filter(Path.is_file, files), None)


def count_parameters(spec: ModelSpec) -> float:
    """Return a model's number of parameters, from its weights, its config entry or its name.

    The weights are counted if they lie in a folder or in the hub's cache. Otherwise `parameters` in
    the entry counts, then the architecture, then a word in the hub's name, then BASE_PARAMETERS.
    """
    if weights := find_weights(spec):
        with open(weights, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return sum(prod(tensor["shape"]) for tensor in header.values() if "shape" in tensor)
    if "parameters" in spec:
        return spec["parameters"]
    if architecture := find_architecture(spec):
        return architecture.parameters
    name = spec.get("architecture", spec.get("hub", ""))
    sizes = (n for word, n in PARAMETERS_BY_WORD.items() if re.search(word, name.casefold()))
    return next(sizes, BASE_PARAMETERS)


def count_operations(spec: ModelSpec) -> float:
    """Return the operations of an image's forward pass."""
    architecture = find_architecture(spec)
    if architecture:
        return architecture.image
    return OPERATIONS_PER_PARAMETER * count_parameters(spec)


def count_weight_copies(method: str) -> float:
    """Return how many copies of a model's weights in float32 a training job holds.

    They are the weights, those that are read, and some slack; of the trained ones also the initial
    and the best values, gradients, and two moments.
    """
    return 3 + 5 * TRAINED_SHARES[get_base_method(method)]


def get_memory_mb(
    data_mb: float, spec: ModelSpec | None = None, copies: float = 0, images_mb: float = 0
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
    return ceil(30 + images * 3 * count_operations(spec) / TRAINING_SPEED / 60)


def count_drawn(recipe: Recipe, images: int, classes: int) -> int:
    """Return how many of a training split's images a recipe uses: a few per class, or all."""
    return min(images, recipe.get("shots", images) * classes)


def count_step_captions(recipe: Recipe, classes: int) -> int:
    """Return how many captions a training step encodes: none if the text tower is frozen."""
    return 0 if recipe["towers"] == "image" else classes


def count_training_images(recipe: Recipe, trials: int, manifest: "Manifest") -> float:
    """Return how many images and captions the trials see, and the probe of LP-FT before them.

    Each training step encodes the captions of all classes.
    """
    classes = len(manifest["classes"])
    train = count_drawn(recipe, manifest["splits"]["train"]["rows"], classes)
    steps = ceil(train / recipe["batch_size"])
    probed = ENCODED * train if "probe" in recipe else 0
    return (
        trials * recipe["epochs"] * (train + steps * count_step_captions(recipe, classes)) + probed
    )


def count_pilot_images(recipe: Recipe, steps: int, manifest: "Manifest") -> float:
    """Return how many images and captions the steps of a pilot see, and its tests encode."""
    tested = ENCODED * PILOT_TESTED * recipe["epochs"]
    captions = count_step_captions(recipe, len(manifest["classes"]))
    return steps * (recipe["batch_size"] + captions) + tested


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
