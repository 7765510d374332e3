"""Types of the config's entries, and of what names one run and one trial of a study.

They are dicts as JSON and YAML give them; `core.config` checks them against the schema and fills
in the defaults, so that every key that is not marked NotRequired is there.
"""

from typing import Any, NotRequired, TypedDict


class ModelSpec(TypedDict, total=False):
    """An entry under `models`: a folder, a model of a hub, or an open_clip architecture."""

    folder: str
    hub: str
    architecture: str
    pretrained: str  # a tag of open_clip's, or a file of weights
    gpus: int
    parameters: float  # how many the model has, for models whose name does not tell


class SourceSpec(TypedDict, total=False):
    """Where images come from: an entry under `datasets`, or one of its shifted tests.

    Exactly one of the first six keys is there.
    """

    parquet: str
    folder: str
    torchvision: str
    webdataset: str
    huggingface: str
    table: str
    root: str
    subset: str
    image: str
    label: str
    splits: dict[str, str]
    licence: str
    source: str
    caption: str
    classes: list[str] | dict[str, str]
    shards: int
    shifted: dict[str, Any]  # name -> SourceSpec


class Search(TypedDict):
    """How a method's grid is searched: all of it, a random part, or by successive halving."""

    kind: str  # "grid", "random" or "halving"
    trials: NotRequired[int]
    seed: int
    eta: int
    rungs: int


class Augmentation(TypedDict):
    """Random crops that keep at least a share `crop` of the area, and horizontal flips."""

    crop: float
    flip: bool


class Recipe(TypedDict):
    """An entry under `methods`; the lists are the sides of its grid.

    The keys below `search` are there for the methods that have them only.
    """

    learning_rate: list[float]
    weight_decay: list[float]
    optimizer: str  # "sgd" or "adamw"
    momentum: float
    epochs: int
    batch_size: int
    schedule: str  # "constant" or "cosine"
    warmup_epochs: float
    label_smoothing: float
    clip_norm: NotRequired[float]
    parts: int
    models: list[str]
    search: Search
    towers: NotRequired[str]  # "both", "image" or "text"
    precision: NotRequired[str]  # "auto", "fp32" or "bf16"
    compile: NotRequired[bool]
    patience: NotRequired[int]
    augmentation: NotRequired[Augmentation]
    wise_ft: NotRequired[list[float]]
    rank: NotRequired[list[int]]  # of LoRA
    alpha: NotRequired[float]
    projections: NotRequired[str]  # "qv" or "qkvo"
    reduction: NotRequired[list[int]]  # of CLIP-Adapter
    ratio: NotRequired[float]


class Trial(TypedDict):
    """One point of a method's grid, and its number in the order of the config's lists."""

    trial: int
    learning_rate: float
    weight_decay: float
    rank: NotRequired[int]
    reduction: NotRequired[int]


class Run(TypedDict):
    """The names of one model, one method and the dataset that the method trains it on."""

    model: str
    method: str
    dataset: str


class Selection(Run):
    """The selected trial of a run, as `best.json` has it, and its trained weights."""

    trial: int
    learning_rate: float
    weight_decay: float
    rank: NotRequired[int]
    reduction: NotRequired[int]
    epoch: int
    val_accuracy: float
    trained_weights: str  # path of the safetensors file
    sha256: str
