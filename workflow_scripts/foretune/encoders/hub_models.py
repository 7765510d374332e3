"""Models and tokenizers in the cache of Hugging Face's hub, and the revisions of them there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from foretune.core.entries import ModelSpec
from foretune.core.errors import ForetuneError
from foretune.encoders.imports import hub, open_clip, restore_compiler

Tokenizer: TypeAlias = Callable[[list[str]], Tensor]

SMALL_FILES = ["*.json", "*.txt", "*.model"]  # a repository's configs and tokenizer


def find_hub_folder(spec: ModelSpec, weights: bool) -> Path:
    """Return the folder of the hub's cache that has a model's files, after fetching them if online.

    The folder's name is the revision: that of the entry, or the newest.
    """
    name, revision = spec["hub"].removeprefix("hf-hub:"), spec.get("revision")
    folder = hub.snapshot_download(name, revision=revision, allow_patterns=SMALL_FILES)
    if weights:
        open_clip.pretrained.download_pretrained_from_hf(name, revision=revision)
    return Path(folder)


def get_revision(spec: ModelSpec) -> str | None:
    """Return the revision of a model's repository that the hub's cache has; None without one."""
    if "hub" in spec:
        return find_hub_folder(spec, weights=False).name
    if "architecture" not in spec:
        return None
    tag = open_clip.get_pretrained_cfg(spec["architecture"], spec["pretrained"])
    repository = tag.get("hf_hub", "").strip("/")
    cached = Path(hub.constants.HF_HUB_CACHE, hub.file_download.repo_folder_name(
        repo_id=repository, repo_type="model"), "refs/main") if repository else None  # fmt: skip
    return cached.read_text().strip() if cached and cached.is_file() else None


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
    folder = hub.snapshot_download(hf_tokenizer_name, allow_patterns=SMALL_FILES)
    return open_clip.tokenizer.HFTokenizer(
        folder, context_length, tokenizer_mode=tokenizer_mode, **(tokenizer_kwargs or {})
    )


def find_text_tower(folder: Path, name: str) -> Path:
    """Return the folder with the config of a model's Hugging Face text tower.

    It is the model's own folder if that has the tower's config.json, or the tower's folder in the
    hub's cache.

    Raises ForetuneError if it is in neither.
    """
    config = folder / "config.json"
    # The config.json of a whole CLIP, which the hub's repositories may have too, is another one.
    if config.is_file():
        kind = json.loads(config.read_text()).get("model_type")
        if kind in open_clip.hf_configs.arch_dict:
            return folder
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(hub.snapshot_download(name, allow_patterns=SMALL_FILES))
    except Exception as error:  # the hub's, httpx's and the system's
        raise ForetuneError(
            f"{folder}: the text tower {name} is neither here nor in the hub's cache; put its "
            f"config.json and tokenizer here, or run `hf download {name} --include '*.json' "
            "'*.txt' '*.model'` on a machine with network"
        ) from error
