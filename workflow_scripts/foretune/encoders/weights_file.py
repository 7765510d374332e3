"""A user's file of weights: reading it, and what it cannot tell of its architecture.

A file has tensors only. Whether they were trained with QuickGELU, and with which normalization and
resizing of the images, must be said in the config if open_clip knows several ways for an
architecture: with the wrong one, a model gives plausible vectors that are wrong.
"""

import argparse
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from foretune.core.entries import ModelSpec
from foretune.core.errors import ForetuneError
from foretune.encoders.imports import open_clip

# In the order in which open_clip looks for them in a folder.
WEIGHTS_NAMES = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth", "model.safetensors",
    "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip
PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode")
# What training checkpoints hold besides tensors: NumPy's numbers and arrays, and plain settings.
# None of these can run code. Files of NumPy 1 name the first two by another path.
MAKE_SCALAR, MAKE_ARRAY = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]
HARMLESS_CLASSES: list[Any] = [
    MAKE_SCALAR,
    MAKE_ARRAY,
    (MAKE_SCALAR, "numpy.core.multiarray.scalar"),
    (MAKE_ARRAY, "numpy.core.multiarray._reconstruct"),
    np.dtype,
    np.ndarray,
    *(kind for name, kind in vars(np.dtypes).items() if name.endswith("DType")),
    argparse.Namespace,
]


def find_weights(folder: Path) -> Path:
    """Return the file of weights in a model's folder.

    Raises ForetuneError if there is none.
    """
    for name in WEIGHTS_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise ForetuneError(f"{folder}: has no weights; one of these is needed: {WEIGHTS_NAMES[0]}, "
                        f"{', '.join(WEIGHTS_NAMES[1:])}")  # fmt: skip


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a file of weights into a model: bare tensors or a training checkpoint of open_clip's.

    Raises ForetuneError, which says what is wrong with the file, if that fails.
    """
    try:
        with torch.serialization.safe_globals(HARMLESS_CLASSES):
            open_clip.load_checkpoint(model, str(path))
    except Exception as error:  # pickle, zipfile, struct, safetensors and torch have their own
        raise ForetuneError(f"{path}: {explain_weights_error(path, error)}") from error


def explain_weights_error(path: Path, error: Exception) -> str:
    """Return in one line why a file of weights cannot be loaded, and what to do."""
    text = " ".join(str(error).split())
    head = path.read_bytes()[:200].lstrip() if path.is_file() and path.stat().st_size < 1e6 else b""
    if not path.is_file():
        return "no such file"
    if head[:1] == b"<":
        return "is a web page, not weights; the download failed: fetch the file again"
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not weights; run `git lfs pull`, or fetch the file itself"
    if refused := re.search(r"GLOBAL (\S+)|Unsupported (?:class|global) (\S+)", text):
        return (
            f"has objects besides tensors, which may run code ({refused[1] or refused[2]}); on the "
            "machine that made it, save the tensors alone: torch.save(model.state_dict(), ...)"
        )
    fits_not = isinstance(error, AssertionError) or "size mismatch" in text
    if fits_not or "in loading state_dict" in text:
        return f"not the weights of this architecture: {text[:300]}"
    return (
        f"cannot be read; it is no file of weights, or it is cut short, and then copy it again "
        f"({type(error).__name__}: {text[:200]})"
    )


def list_tag_preprocessing(architecture: str) -> dict[str, dict[str, Any]]:
    """Return the preprocessing of each of open_clip's tags, and CLIP's, which it assumes for files.

    The values have the keys of PREPROCESS_KEYS.
    """
    default = asdict(open_clip.transform.PreprocessCfg())
    known = {"CLIP": default}
    for tag in open_clip.list_pretrained_tags_by_model(architecture):
        facts = open_clip.get_pretrained_cfg(architecture, tag)
        known[tag] = open_clip.transform.merge_preprocess_dict(default, facts)
    return {name: {key: facts[key] for key in PREPROCESS_KEYS} for name, facts in known.items()}


def refuse_guesses(spec: ModelSpec) -> None:
    """Refuse a file whose activation or preprocessing would have to be guessed.

    Raises ForetuneError, which names the choices, if open_clip's tags for the architecture differ
    and the entry does not say which holds.
    """
    name, choices = spec["architecture"], []
    if open_clip.get_model_config(f"{name}-quickgelu") and "quick_gelu" not in spec:
        choices.append("quick_gelu: true (as for OpenAI's weights) or quick_gelu: false")
    known, given = list_tag_preprocessing(name), spec.get("preprocess", {})
    open_keys = [
        key
        for key in PREPROCESS_KEYS
        if key not in given and len({str(facts[key]) for facts in known.values()}) > 1
    ]
    if open_keys:
        by_value: dict[str, list[str]] = {}
        for tag, facts in known.items():
            pairs = ", ".join(f"{key}: {format_value(facts[key])}" for key in open_keys)
            by_value.setdefault(f"preprocess: {{{pairs}}}", []).append(tag)
        choices.append(
            " or ".join(f"{text} (as {', '.join(tags[:3])})" for text, tags in by_value.items())
        )
    if choices:
        raise ForetuneError(
            f"{spec['pretrained']}: a file does not tell how {name} was trained; add to the "
            f"model's entry: {'; and '.join(choices)}"
        )


def format_value(value: Any) -> str:
    """Return a value of a preprocessing as YAML."""
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple | list) else str(value)
