"""Loads dual encoders, with their preprocessing and tokenizers, through open_clip.

The config names a model in one of three ways: by an open_clip architecture with a pretrained tag or
a file of weights, by a model of Hugging Face's hub (`hub: org/name`), or by a folder that holds
`open_clip_config.json` (open_clip's `local-dir:` form) and weights. A text tower of Hugging Face's
is built from a `config.json` in that folder, or from the hub's cache. A folder's config may have a
section for foretune:

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
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call

from foretune.core.entries import ModelSpec
from foretune.core.errors import ForetuneError
from foretune.core.files import atomic_write
from foretune.core.schema_errors import suggest_name
from foretune.encoders.hub_models import (
    Tokenizer,
    find_hub_folder,
    find_text_tower,
    load_hub_tokenizer,
)
from foretune.encoders.imports import hub, open_clip, restore_transformers, timm
from foretune.encoders.preprocess import Preprocess
from foretune.encoders.weights_file import find_weights, load_weights, refuse_guesses

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"

# A torch module with open_clip's encode_image, encode_text and logit_scale. open_clip's classes
# (CLIP, CustomTextCLIP, CoCa) share no base class but nn.Module, and have no types.
DualEncoder: TypeAlias = Any


class LoadedModel(NamedTuple):
    """A model in eval mode and float32, its preprocessing and its tokenizer."""

    model: DualEncoder
    preprocess: Preprocess
    tokenizer: Tokenizer


def load_model(spec: ModelSpec, device: str = "cpu", weights: bool = True) -> LoadedModel:
    """Load the model of a config entry onto a device.

    weights: False leaves the weights at their random initial values.

    Raises ForetuneError if the folder, its weights, the name or the tag are missing or not valid.
    """
    try:
        if "architecture" in spec:
            model, tokenizer = load_architecture(spec, weights)
        else:
            folder = Path(spec["folder"]) if "folder" in spec else find_hub_folder(spec, weights)
            model, tokenizer = load_model_folder(folder, weights)
    except ForetuneError as error:
        raise ForetuneError(f"cannot load the model {spec}: {error}") from error
    except Exception as error:  # open_clip, timm, transformers and the hub have many kinds
        reason = " ".join(str(error).split())
        raise ForetuneError(
            f"cannot load the model {spec}: {reason}{explain_model_fetch(spec)}"
        ) from error
    # Not with channels last: the gain is 3%, and torch's backward pass of a FastViT tower on a CPU
    # (MobileCLIP) then writes outside its memory.
    model = model.to(device).eval()
    return LoadedModel(model, Preprocess(model), tokenizer)


def get_open_clip_name(spec: ModelSpec) -> str:
    """Return open_clip's name of a public model (one that is not a folder)."""
    return spec.get("architecture") or f"hf-hub:{spec['hub'].removeprefix('hf-hub:')}"


def load_architecture(spec: ModelSpec, weights: bool) -> tuple[DualEncoder, Tokenizer]:
    """Load a model and its tokenizer by open_clip's name; raises the libraries' own errors."""
    name = spec["architecture"]
    config = open_clip.get_model_config(name)
    if config is None:
        raise ValueError(
            f"open_clip has no such architecture{suggest_name(name, open_clip.list_models())}"
        )
    pretrained = spec.get("pretrained", "")
    tag = open_clip.get_pretrained_cfg(name, pretrained) if weights else {}
    file = Path(pretrained) if not tag and Path(pretrained).is_file() else None
    if file:
        refuse_guesses(spec)
    quick_gelu = spec.get("quick_gelu", config.get("quick_gelu", False))
    if config.get("quick_gelu") and not quick_gelu:
        raise ValueError(f"quick_gelu: is false, but {name} has it: name the architecture without")
    if tag.get("quick_gelu") and not quick_gelu:
        # open_clip would only warn, and the embeddings would be wrong.
        raise ValueError(
            f"{pretrained} was trained with the architecture {name}-quickgelu: name that one"
        )
    if "hf_model_name" in config["text_cfg"]:
        restore_transformers()
    from_open_clip = weights and not file
    # Without require_pretrained, open_clip would give random weights if a tag's are missing.
    model = create_model(
        name, pretrained=pretrained if from_open_clip else None, load_weights=from_open_clip,
        require_pretrained=from_open_clip, force_quick_gelu=quick_gelu,
        force_preprocess_cfg=spec.get("preprocess"),
    )  # fmt: skip
    if file:
        load_weights(model, file)
    if "hf_tokenizer_name" in config["text_cfg"]:
        return model, load_hub_tokenizer(**config["text_cfg"])
    return model, open_clip.get_tokenizer(name)


def explain_model_fetch(spec: ModelSpec) -> str:
    """Return how to get a public model's files, since jobs never download (see imports.py)."""
    if "folder" in spec or Path(spec.get("pretrained", "")).is_file():
        return ""
    return (
        "; on a machine with network, `make fetch STUDY=<the study's file>` downloads weights and "
        f"tokenizers to {hub.constants.HF_HUB_CACHE}; by hand: put them into a folder and name it "
        "with `folder:`, or name a file of weights with `pretrained:`"
    )


def create_model(name: str, **options) -> DualEncoder:
    """Create a model by open_clip without its messages, such as of weights that are loaded later.

    The base weights of a Hugging Face text tower are not asked for.
    """
    logging.disable(logging.WARNING)
    try:
        return open_clip.create_model(name, pretrained_text=False, **options)
    finally:
        logging.disable(logging.NOTSET)


def load_model_folder(folder: Path, weights: bool) -> tuple[DualEncoder, Tokenizer]:
    """Load a model and its tokenizer from a folder; raises the libraries' own errors."""
    config = read_model_config(folder / CONFIG_NAME)
    extras, text_config = config.get("foretune", {}), config["model_cfg"]["text_cfg"]
    if "timm" in extras:
        register_timm_model(config["model_cfg"]["vision_cfg"]["timm_model_name"], **extras["timm"])
    overrides: dict[str, Any] = {}
    if "hf_model_name" in text_config:
        restore_transformers()
        tower = find_text_tower(folder, text_config["hf_model_name"])
        text = {**text_config, "hf_model_name": str(tower), "hf_model_pretrained": False}
        overrides["text_cfg"] = text
    model = create_model(f"local-dir:{folder}", load_weights=False, **overrides)
    if "stem" in extras:
        stem = make_conv_stem(**extras["stem"])
        if "timm" in extras:
            model.visual.trunk.patch_embed.proj = stem
        else:
            model.visual.conv1 = stem
    if weights:
        load_weights(model, find_weights(folder))
    # open_clip takes the tokenizer of a folder from the folder alone.
    if "hf_tokenizer_name" in text_config and not any(folder.glob("tokenizer*")):
        return model, load_hub_tokenizer(**text_config)
    bpe = {"bpe_path": str(folder / Path(extras["merges"]).name)} if "merges" in extras else {}
    return model, open_clip.get_tokenizer(f"local-dir:{folder}", **bpe)


def read_model_config(path: Path) -> dict[str, Any]:
    """Return the content of a model's open_clip_config.json.

    Raises ForetuneError if it cannot be read, lacks a tower, or asks to run code.
    """
    try:
        config = json.loads(path.read_text())
        towers = [config["model_cfg"][name] for name in ("text_cfg", "vision_cfg")]
    except (OSError, ValueError) as error:
        raise ForetuneError(f"{path}: cannot be read ({error})") from error
    except (LookupError, TypeError):
        towers = []
    if not towers or not all(isinstance(tower, dict) for tower in towers):
        raise ForetuneError(f"{path}: needs model_cfg with text_cfg and vision_cfg")
    refuse_remote_code(config)
    return config


def refuse_remote_code(config: Any) -> None:
    """Refuse a model's config that asks transformers to run code that the model brings.

    Raises ForetuneError.
    """
    if isinstance(config, dict):
        if any("trust_remote_code" in key and value for key, value in config.items()):
            raise ForetuneError(
                f"{CONFIG_NAME}: trust_remote_code would run code of the model's author, which "
                "foretune does not do"
            )
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            refuse_remote_code(value)


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
    """Return the SHA-256 over names and values of all weights, independent of their file.

    QuickGELU counts as well: the same weights give other vectors with it.
    """
    digest = hashlib.sha256()
    if any(isinstance(module, open_clip.transformer.QuickGELU) for module in model.modules()):
        digest.update(b"QuickGELU")
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
