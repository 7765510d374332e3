"""Types of the config's entries, and of the runs, trials and selections made from them.

At run time they are the plain dicts that JSON and YAML give. `core.config` checks the config's
entries against the schema and fills in the defaults, so that every key without NotRequired is
there.
"""

from typing import Any, NotRequired, TypedDict


class ModelSpec(TypedDict, total=False):
    """An entry under `models`: a folder, a model on a hub, or an open_clip architecture."""

    folder: str
    hub: str
    revision: str  # a commit of the hub's repository
    architecture: str
    pretrained: str  # a tag of open_clip, or a file of weights
    quick_gelu: bool  # of a file of weights, which cannot tell; see encoders/weights_file.py
    preprocess: dict[str, Any]
    gpus: int
    encode_batch_size: int  # images per forward pass; 0 is the default of the device
    parameters: float  # their number, for models whose name does not tell it


class SourceSpec(TypedDict, total=False):
    """The source of images: an entry under `datasets`, or one of its shifted tests.

    Exactly one of the first six keys is there; it names the kind of source.
    """

    parquet: str
    folder: str
    torchvision: str
    webdataset: str
    huggingface: str
    table: str
    root: str
    revision: str  # a commit of the hub's repository
    subset: str
    image: str
    label: str
    group: str
    splits: dict[str, str]
    licence: str
    source: str
    caption: str | list[str]  # templates with {}, or a JSON file of captions by class
    classes: list[str] | dict[str, str]
    class_half: str  # "base" or "new"; see core/class_halves.py
    shards: int
    shifted: dict[str, Any]  # name -> SourceSpec


class Search(TypedDict):
    """The search of a method's grid: of all points, at random, or by successive halving."""

    kind: str  # "grid", "random" or "halving"
    trials: NotRequired[int]
    seed: int
    eta: int
    rungs: int


class Augmentation(TypedDict):
    """Random crops that keep at least the fraction `crop` of the area, and horizontal flips."""

    crop: float
    flip: bool


class Recipe(TypedDict):
    """An entry under `methods`; its grid is the product of its lists.

    The keys below `search` are only there for the methods that use them.
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
    projections: NotRequired[str]  # "qv", "qkv" or "qkvo"
    dropout: NotRequired[float]  # of the input of LoRA's updates
    probe: NotRequired[dict[str, Any]]  # of LP-FT
    features: NotRequired[str]  # of a linear probe: "projected" or "pooled"
    reduction: NotRequired[list[int]]  # of CLIP-Adapter
    ratio: NotRequired[float]
    # In the config, `shots` and `seeds` are lists; see `core.variants`.
    shots: NotRequired[int]  # training images per class that are drawn
    seed: NotRequired[int]  # in place of the study's


class Trial(TypedDict):
    """A point of a method's grid, and its number in the order of the config's lists."""

    trial: int
    learning_rate: float
    weight_decay: float
    rank: NotRequired[int]
    reduction: NotRequired[int]


class Run(TypedDict):
    """The names of a model, a method, and the dataset that the model is trained on."""

    model: str
    method: str
    dataset: str


class PilotFile(Run):
    """The JSON file of a pilot: a few steps of fine-tuning on a part of the training images."""

    accuracy: float  # on held-back training images
    n: int  # of these
    steps: int  # that were taken
    steps_asked: int  # by the config
    learning_rate: float
    seconds: float  # of the steps, without loading model and images
    loss: float  # mean of the last epoch


class Selection(Run):
    """The selected trial of a run and its trained weights: the content of `best.json`.

    If every trial diverged, it has `diverged` in place of a trial, and the weights are empty.
    """

    diverged: NotRequired[bool]

    trial: int
    learning_rate: float
    weight_decay: float
    rank: NotRequired[int]
    reduction: NotRequired[int]
    epoch: int
    val_accuracy: float
    trained_weights: str  # path of the safetensors file
    sha256: str
