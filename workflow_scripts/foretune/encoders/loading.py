"""Dual encoders, all through open_clip: `(model, preprocess, tokenizer)`.

A model is named in the config by an open_clip architecture and a pretrained tag or a file of
weights, by a model of Hugging Face's hub (`hub: org/name`), or by a folder that holds
`open_clip_config.json` (open_clip's own `local-dir:` form) and `open_clip_model.safetensors`. A
folder's config may have a section of ours:

    "foretune": {"stem": {"widths": [32, 64, 128], "strides": [2, 2, 2]}, "merges": "merges.txt.gz"}

`stem` puts small strided convolutions in the place of the linear patch embedding (Xiao et
al. 2021, "Early convolutions help transformers see better"); `merges` is the tokenizer's
byte-pair merges, cut to the words that the model was pretrained on. `timm` makes a small image
tower of a timm model's kind, for open_clip to find under the name in `vision_cfg`:

    "timm": {"like": "eva02_base_patch16_clip_224", "img_size": 32, "embed_dim": 128, ...}
"""

import hashlib
import json
import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call

from foretune.core.errors import ForetuneError
from foretune.core.files import atomic_write
from foretune.core.schema_errors import suggest_name
from foretune.encoders.imports import hub, open_clip, restore_compiler, restore_transformers, timm

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"


def load_model(spec: dict, device: str = "cpu", weights: bool = True):
    """Build the model that `spec` names.

    spec: `{"folder": path}`, `{"hub": "org/name"}` or `{"architecture": name, "pretrained": tag or
    weights file}`. Returns (model in eval mode and float32, Preprocess, tokenizer).
    Raises ForetuneError where the folder, its weights, the name or the tag do not fit.
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
    # Convolutions are faster with channels last (a sixth of a mini encoder's training step).
    model = model.to(device, memory_format=torch.channels_last).eval()
    return model, Preprocess(model), tokenizer


def get_open_clip_name(spec: dict) -> str:
    """What open_clip calls a model that is no folder."""
    return spec.get("architecture") or f"hf-hub:{spec['hub'].removeprefix('hf-hub:')}"


def load_public_model(spec: dict, weights: bool):
    """A model and tokenizer by open_clip's names; errors as those of the libraries."""
    name = get_open_clip_name(spec)
    config = open_clip.get_model_config(name)
    if config is None:
        raise ValueError(
            f"no architecture of open_clip{suggest_name(name, open_clip.list_models())}"
        )
    pretrained = spec.get("pretrained") if weights else None
    tag = open_clip.get_pretrained_cfg(name, pretrained) if pretrained else {}
    if tag.get("quick_gelu") and not config.get("quick_gelu"):
        # open_clip would warn only, and the numbers would be others.
        raise ValueError(f"{pretrained} was trained as architecture {name}-quickgelu: write that")
    if "hf_model_name" in config["text_cfg"]:
        restore_transformers()
    # Of a hub's model whose weights are missing open_clip would make one of random weights.
    model = open_clip.create_model(
        name, pretrained=pretrained, load_weights=weights, require_pretrained=weights
    )
    if "hf_tokenizer_name" in config["text_cfg"]:
        return model, load_hub_tokenizer(**config["text_cfg"])
    return model, open_clip.get_tokenizer(name)


def load_hub_tokenizer(
    hf_tokenizer_name: str, context_length: int = 77, tokenizer_kwargs: dict | None = None,
    tokenizer_mode: str | None = None, **_,
):  # fmt: skip
    """The tokenizer that open_clip makes of a text tower's config, from a folder in the cache.

    By the hub's name, transformers would look for a config.json that such repositories may lack,
    and fail where it cannot ask the hub for it.
    """
    restore_compiler()  # transformers asks for it
    patterns = ["*.json", "*.txt", "*.model"]
    folder = hub.snapshot_download(hf_tokenizer_name, allow_patterns=patterns)
    return open_clip.tokenizer.HFTokenizer(
        folder, context_length, tokenizer_mode=tokenizer_mode, **(tokenizer_kwargs or {})
    )


def explain_model_fetch(spec: dict) -> str:
    """Said where a public model's files may be missing: jobs never download (lean.py)."""
    if "folder" in spec or Path(spec.get("pretrained", "")).is_file():
        return ""
    return (
        "; on a machine with network, `make fetch STUDY=<the study's file>` brings weights and "
        f"tokenizers to {hub.constants.HF_HUB_CACHE}; by hand: put them into a folder and name it "
        "by `folder:`, or name a file of weights by `pretrained:`"
    )


def load_model_folder(folder: Path, weights: bool):
    config = json.loads((folder / CONFIG_NAME).read_text())
    ours = config.get("foretune", {})
    if "timm" in ours:
        register_timm_model(config["model_cfg"]["vision_cfg"]["timm_model_name"], **ours["timm"])
    logging.disable(logging.WARNING)  # it warns that there are no weights; they come below
    try:
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    finally:
        logging.disable(logging.NOTSET)
    if "stem" in ours:
        stem = make_conv_stem(**ours["stem"])
        if "timm" in ours:
            model.visual.trunk.patch_embed.proj = stem
        else:
            model.visual.conv1 = stem
    if weights:
        state = load_file(folder / WEIGHTS_NAME)
        model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    bpe = {"bpe_path": str(folder / ours["merges"])} if "merges" in ours else {}
    return model, open_clip.get_tokenizer(f"local-dir:{folder}", **bpe)


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write the model's weights in half precision, whole or not at all."""
    state = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(folder / WEIGHTS_NAME) as beside:
        save_file(state, beside)


def register_timm_model(name: str, like: str, **arguments) -> None:
    """Let timm know, as `name`, its own model `like` with other arguments (smaller ones)."""
    if timm.models.is_model(name):
        return

    def build(**given):
        return timm.models.model_entrypoint(like)(**{**arguments, **given})

    build.__name__ = name
    timm.models.register_model(build)


def make_conv_stem(widths: list[int], strides: list[int]) -> nn.Sequential:
    """3 x 3 convolutions with a group norm and GELU between them; no batch statistics."""
    layers: list[nn.Module] = []
    for before, width, stride in zip([3, *widths], widths, strides, strict=False):
        if layers:
            layers += [nn.GroupNorm(1, before), nn.GELU()]
        layers.append(nn.Conv2d(before, width, 3, stride, padding=1))
    return nn.Sequential(*layers)


class Preprocess:
    """The model's own preprocessing, in two halves that compose to it exactly.

    `Preprocess(model)(image)` decodes, resizes and crops to uint8, which is worth keeping;
    `normalize(batch)` turns kept uint8 images (B, 3, H, W) into what the model reads.
    """

    def __init__(self, model: nn.Module):
        self.config = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
        *self._steps, normalize = open_clip.transform.image_transform_v2(
            self.config, is_train=False
        ).transforms
        self._mean = torch.tensor(normalize.mean).view(3, 1, 1)
        self._std = torch.tensor(normalize.std).view(3, 1, 1)

    def __call__(self, image) -> Tensor:
        for step in self._steps:
            image = step(image)
        return (image * 255).round().to(torch.uint8)  # resized as uint8: this loses nothing

    def normalize(self, images: Tensor) -> Tensor:
        mean, std = self._mean.to(images.device), self._std.to(images.device)
        images = images.contiguous(memory_format=torch.channels_last)
        return (images.float() / 255 - mean) / std


class _TextTower(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens, normalize=False)


def encode_text(model: nn.Module, tokens: Tensor) -> Tensor:
    """Caption embeddings (C, d), as the tower gives them (not of unit length).

    A causal tower that pools at the end-of-text token (CLIP's, EVA-02's) cannot see past it, so
    the context is cut after the longest caption; the result is the same to rounding. CoCa's
    class token stands after the context and sees no padding, but for one position in which
    open_clip's mask is off by one: that one is kept. SigLIP's tower pools at the context's last
    position, over the padding before it, so its context is not cut.
    """
    tower = getattr(model, "text", model)
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    causal = getattr(tower, "attn_mask", None) is not None
    positions, every = getattr(tower, "positional_embedding", None), tokens.shape[1]
    if causal and getattr(tower, "cls_emb", None) is not None:
        length = min(every, int((tokens != tower.pad_id).sum(dim=1).max()) + 1)
        positions = torch.cat([positions[:length], positions[every : every + 1]])
    elif causal and pool == "argmax":
        length = int(tokens.argmax(dim=1).max()) + 1
        positions = positions[:length]
    else:
        return model.encode_text(tokens, normalize=False)  # CoCa would, unasked
    prefix = "model." if tower is model else "model.text."
    cut = {
        prefix + "positional_embedding": positions,
        prefix + "attn_mask": tower.attn_mask[: len(positions), : len(positions)],
    }
    return functional_call(_TextTower(model), cut, (tokens[:, :length],))


def digest_weights(model: nn.Module) -> str:
    """Sha256 over names and values of all weights, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
