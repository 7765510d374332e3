"""Imports open_clip, timm and huggingface_hub without what they load and no job here uses.

Every job waits for its imports. transformers is needed only for Hugging Face's text towers. torch's
compiler is needed only for `compile: true`; torchvision, timm and torch's optimizers import it to
exempt functions from it. Without these two, a job starts in half the time (benchmarks/start.md).
`restore_transformers` and `restore_compiler` load them later.

This short start replaces entries of `sys.modules`, so it is limited to the versions in
TRIED_VERSIONS. For other versions, or if the environment variable FORETUNE_FULL_IMPORTS is 1, the
libraries are imported plainly.

Jobs do not ask Hugging Face's hub about files that are in its cache already: weights are fetched
before the study (planning/fetch.py), and a job without network would wait a minute for each file.

    from foretune.encoders.imports import open_clip, timm  # instead of `import open_clip, timm`
"""

import importlib
import os
import sys
import types
from importlib import metadata
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # huggingface_hub reads it when it is imported

TRANSFORMERS, COMPILER = "transformers", "torch._dynamo"
TRIED_VERSIONS = {"torch": ("2.14", "2.15"), "open_clip_torch": ("3.3",)}


def may_shorten_imports() -> bool:
    """Return whether the short start is not switched off and was tried with these versions."""
    if os.environ.get("FORETUNE_FULL_IMPORTS") == "1":
        return False
    try:
        return all(
            metadata.version(package).startswith(tuple(f"{version}." for version in tried))
            for package, tried in TRIED_VERSIONS.items()
        )
    except metadata.PackageNotFoundError:  # installed in another way, so the version is unknown
        return False


def import_open_clip() -> types.ModuleType:
    """Import open_clip without transformers and torch's compiler, or plainly if need be."""
    if not may_shorten_imports():
        return importlib.import_module("open_clip")
    modules: dict[str, Any] = sys.modules
    hides_transformers = TRANSFORMERS not in modules
    if hides_transformers:
        modules[TRANSFORMERS] = None  # an import of it then fails, which open_clip allows for
    if COMPILER not in modules:
        add_compiler_stub(modules)
    try:
        return importlib.import_module("open_clip")
    except (ImportError, AttributeError):
        # timm or torchvision uses more of the compiler than the stub has.
        restore_compiler()
        return importlib.import_module("open_clip")
    finally:
        if hides_transformers:
            del modules[TRANSFORMERS]


def add_compiler_stub(modules: dict[str, Any]) -> None:
    """Add a stub of torch's compiler, whose decorators return functions unchanged."""

    def exempt(function=None, *_, **__):
        return function if function is not None else exempt

    compiler, utils = types.ModuleType(COMPILER), types.ModuleType(f"{COMPILER}.utils")
    vars(compiler).update(disable=exempt, graph_break=exempt)
    vars(utils).update(is_compile_supported=lambda device: False)
    modules |= {COMPILER: compiler, utils.__name__: utils}


def restore_transformers() -> None:
    """Load transformers, so that open_clip can build Hugging Face's text towers."""
    restore_compiler()  # transformers imports it
    if open_clip.hf_model.transformers is None:
        text_towers = importlib.reload(open_clip.hf_model)
        open_clip.model.HFTextEncoder = text_towers.HFTextEncoder


def restore_compiler() -> None:
    """Load torch's compiler in place of its stub."""
    for name in (COMPILER, f"{COMPILER}.utils"):
        if name in sys.modules and not hasattr(sys.modules[name], "__file__"):
            del sys.modules[name]
    importlib.import_module(COMPILER)


open_clip = import_open_clip()
timm = importlib.import_module("timm")
hub = importlib.import_module("huggingface_hub")
