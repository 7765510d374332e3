"""Loads dual encoders, with their preprocessing and tokenizers, through open_clip.

The config names a model in one of three ways: by an open_clip architecture with a pretrained tag or
a file of weights, by a model of Hugging Face's hub (`hub: org/name`), or by a folder that holds
`open_clip_config.json` (open_clip's `local-dir:` form) and `open_clip_model.safetensors`. A
folder's config may have a section for foretune:

    "foretune": {"stem": {"widths": [32, 64, 128], "strides": [2, 2, 2]}, "merges": "merges.txt.gz"}

`stem` replaces the linear patch embedding by small strided convolutions (Xiao et al. 2021, "Early
convolutions help transformers see better"). `merges` names a file with the tokenizer's byte-pair
merges, reduced to the words that the model was pretrained on. `timm` registers a small variant of a
timm model as the image tower, under the name that `vision_cfg` gives:

    "timm": {"like": "eva02_base_patch16_clip_224", "img_size": 32, "embed_dim": 128, ...}
"""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call

from foretune.core.entries import ModelSpec
from foretune.core.errors import ForetuneError
from foretune.core.files import atomic_write
from foretune.core.schema_errors import suggest_name
from foretune.encoders.imports import hub, open_clip, restore_compiler, restore_transformers, timm

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"

# A torch module with open_clip's encode_image, encode_text and logit_scale. open_clip's classes
# (CLIP, CustomTextCLIP, CoCa) share no base class but nn.Module, and have no types.
DualEncoder: TypeAlias = Any
Tokenizer: TypeAlias = Callable[[list[str]], Tensor]


class LoadedModel(NamedTuple):
    """A model in eval mode and float32, its preprocessing and its tokenizer."""

    model: DualEncoder
    preprocess: "Preprocess"
    tokenizer: Tokenizer


def load_model(spec: ModelSpec, device: str = "cpu", weights: bool = True) -> LoadedModel:
    """Load the model of a config entry onto a device.

    weights: False leaves the weights at their random initial values.

    Raises ForetuneError if the folder, its weights, the name or the tag are missing or not valid.
    """
    try:
        if "folder" in spec:
            model, tokenizer = load_model_folder(Path(spec["folder"]), weights)
        else:
            model, tokenizer = load_public_model(spec, weights)
    except (
        RuntimeError,
        OSError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        SafetensorError,
    ) as error:
        raise ForetuneError(
            f"cannot load the model {spec}: {error}{explain_model_fetch(spec)}"
        ) from error
    # Convolutions are faster with channels last (by a sixth of a mini encoder's training step).
    model = model.to(device, memory_format=torch.channels_last).eval()
    return LoadedModel(model, Preprocess(model), tokenizer)


def get_open_clip_name(spec: ModelSpec) -> str:
    """Return open_clip's name of a public model (one that is not a folder)."""
    return spec.get("architecture") or f"hf-hub:{spec['hub'].removeprefix('hf-hub:')}"


def load_public_model(spec: ModelSpec, weights: bool) -> tuple[DualEncoder, Tokenizer]:
    """Load a model and its tokenizer by open_clip's name; raises the libraries' own errors."""
    name = get_open_clip_name(spec)
    config = open_clip.get_model_config(name)
    if config is None:
        raise ValueError(
            f"open_clip has no such architecture{suggest_name(name, open_clip.list_models())}"
        )
    pretrained = spec.get("pretrained") if weights else None
    tag = open_clip.get_pretrained_cfg(name, pretrained) if pretrained else {}
    if tag.get("quick_gelu") and not config.get("quick_gelu"):
        # open_clip would only warn, and the embeddings would be wrong.
        raise ValueError(
            f"{pretrained} was trained with the architecture {name}-quickgelu: name that one"
        )
    if "hf_model_name" in config["text_cfg"]:
        restore_transformers()
    # Without require_pretrained, open_clip would give a hub's model random weights if its own are
    # missing.
    model = open_clip.create_model(
        name, pretrained=pretrained, load_weights=weights, require_pretrained=weights
    )
    if "hf_tokenizer_name" in config["text_cfg"]:
        return model, load_hub_tokenizer(**config["text_cfg"])
    return model, open_clip.get_tokenizer(name)


def load_hub_tokenizer(
    hf_tokenizer_name: str, context_length: int = 77, tokenizer_kwargs: dict | None = None,
    tokenizer_mode: str | None = None, **_,
) -> Tokenizer:  # fmt: skip
    """Return the tokenizer of a text tower's config, loaded from its folder in the hub's cache.

    The arguments are open_clip's keys of `text_cfg`; others are ignored. Given the hub's name,
    transformers would look for a config.json that such repositories may lack, and fail if it
    cannot ask the hub.
    """
    restore_compiler()  # transformers imports it
    patterns = ["*.json", "*.txt", "*.model"]
    folder = hub.snapshot_download(hf_tokenizer_name, allow_patterns=patterns)
    return open_clip.tokenizer.HFTokenizer(
        folder, context_length, tokenizer_mode=tokenizer_mode, **(tokenizer_kwargs or {})
    )


def explain_model_fetch(spec: ModelSpec) -> str:
    """Return how to get a public model's files, since jobs never download (see imports.py)."""
    if "folder" in spec or Path(spec.get("pretrained", "")).is_file():
        return ""
    return (
        "; on a machine with network, `make fetch STUDY=<the study's file>` downloads weights and "
        f"tokenizers to {hub.constants.HF_HUB_CACHE}; by hand: put them into a folder and name it "
        "with `folder:`, or name a file of weights with `pretrained:`"
    )


def load_model_folder(folder: Path, weights: bool) -> tuple[DualEncoder, Tokenizer]:
    """Load a model and its tokenizer from a folder; raises the libraries' own errors."""
    config = json.loads((folder / CONFIG_NAME).read_text())
    extras = config.get("foretune", {})
    if "timm" in extras:
        register_timm_model(config["model_cfg"]["vision_cfg"]["timm_model_name"], **extras["timm"])
    logging.disable(logging.WARNING)  # open_clip warns of missing weights, which are loaded below
    try:
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    finally:
        logging.disable(logging.NOTSET)
    if "stem" in extras:
        stem = make_conv_stem(**extras["stem"])
        if "timm" in extras:
            model.visual.trunk.patch_embed.proj = stem
        else:
            model.visual.conv1 = stem
    if weights:
        state = load_file(folder / WEIGHTS_NAME)
        model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    bpe = {"bpe_path": str(folder / extras["merges"])} if "merges" in extras else {}
    return model, open_clip.get_tokenizer(f"local-dir:{folder}", **bpe)


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write the model's weights to a folder, in half precision and atomically."""
    state = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(folder / WEIGHTS_NAME) as temporary:
        save_file(state, temporary)


def register_timm_model(name: str, like: str, **arguments) -> None:
    """Register timm's model `like` with other default arguments under a new name."""
    if timm.models.is_model(name):
        return

    def build(**overrides):
        return timm.models.model_entrypoint(like)(**{**arguments, **overrides})

    build.__name__ = name
    timm.models.register_model(build)


def make_conv_stem(widths: list[int], strides: list[int]) -> nn.Sequential:
    """Return 3 x 3 convolutions with group norms and GELUs between them.

    Group norms make an image's result independent of its batch.
    """
    layers: list[nn.Module] = []
    for before, width, stride in zip([3, *widths], widths, strides, strict=False):
        if layers:
            layers += [nn.GroupNorm(1, before), nn.GELU()]
        layers.append(nn.Conv2d(before, width, 3, stride, padding=1))
    return nn.Sequential(*layers)


class Preprocess:
    """The model's own preprocessing, split into two steps whose composition is exact.

    `Preprocess(model)(image)` resizes and crops an image to uint8 (3, H, W), which is cached.
    `normalize(batch)` converts such images (B, 3, H, W) to the model's input.
    """

    def __init__(self, model: DualEncoder):
        self.config = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
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
        images = images.contiguous(memory_format=torch.channels_last)
        return (images.float() / 255 - mean) / std


class _TextTower(nn.Module):
    """Makes encode_text a forward pass, as functional_call needs it."""

    def __init__(self, model: DualEncoder):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens, normalize=False)


def encode_text(model: DualEncoder, tokens: Tensor) -> Tensor:
    """Return the raw embeddings (C, d) of tokenized captions (C, context length).

    A causal tower that pools at the end-of-text token (CLIP's, EVA-02's) cannot see past it. Its
    context is therefore cut after the longest caption; the result is the same up to rounding.
    CoCa's class token stands after the context and sees no padding, except for one position, where
    open_clip's mask is off by one; that position is kept. SigLIP's tower pools at the context's
    last position, which sees the padding, so its context is not cut.
    """
    tower: Any = getattr(model, "text", model)
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    causal = getattr(tower, "attn_mask", None) is not None
    context = tokens.shape[1]
    if causal and getattr(tower, "cls_emb", None) is not None:
        is_token: Tensor = tokens != tower.pad_id
        length = min(context, int(is_token.sum(dim=1).max()) + 1)
        positions = tower.positional_embedding
        positions = torch.cat([positions[:length], positions[context : context + 1]])
    elif causal and pool == "argmax":
        length = int(tokens.argmax(dim=1).max()) + 1
        positions = tower.positional_embedding[:length]
    else:
        return model.encode_text(tokens, normalize=False)  # CoCa normalizes by default
    prefix = "model." if tower is model else "model.text."
    cut = {
        prefix + "positional_embedding": positions,
        prefix + "attn_mask": tower.attn_mask[: len(positions), : len(positions)],
    }
    return functional_call(_TextTower(model), cut, (tokens[:, :length],))


def digest_weights(model: nn.Module) -> str:
    """Return the SHA-256 over names and values of all weights, independent of their file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
