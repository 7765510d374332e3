"""A short start for jobs: what open_clip imports and no job here uses is left out.

Every job waits for its imports. transformers is needed for nothing but Hugging Face's text
towers, and torch's compiler, which torchvision, timm and torch's optimizers fetch in order to
exempt functions from it, for nothing but `compile: true`. Without the two, a job starts in half
the time (benchmarks/start.md). `restore_transformers` and `restore_compiler` bring them back.

Nor does a job ask Hugging Face's hub for what is in its cache already: weights are fetched before
the study (fetch.py), and a job without network would wait a minute for each file.

    from foretune.encoders.imports import open_clip, timm  # in the place of `import open_clip`
"""

import importlib
import os
import sys
import types

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by huggingface_hub when it is imported

TRANSFORMERS, COMPILER = "transformers", "torch._dynamo"


def _exempt(function=None, *_, **__):
    return function if function is not None else _exempt


def _import_open_clip():
    """open_clip, imported without transformers and without torch's compiler."""
    absent = TRANSFORMERS not in sys.modules
    if absent:
        sys.modules[TRANSFORMERS] = None  # open_clip does without, where it is missing
    stands_in = COMPILER not in sys.modules
    if stands_in:
        compiler, utils = types.ModuleType(COMPILER), types.ModuleType(f"{COMPILER}.utils")
        compiler.disable, compiler.graph_break = _exempt, _exempt
        utils.is_compile_supported = lambda device: False
        sys.modules |= {COMPILER: compiler, utils.__name__: utils}
    try:
        return importlib.import_module("open_clip")
    except (ImportError, AttributeError):
        # Another version asks more of the compiler than stands in for it: give it the whole.
        restore_compiler()
        return importlib.import_module("open_clip")
    finally:
        if absent:
            del sys.modules[TRANSFORMERS]


def restore_transformers() -> None:
    """Let open_clip build Hugging Face's text towers."""
    restore_compiler()  # transformers asks for it
    towers = importlib.reload(open_clip.hf_model)
    open_clip.model.HFTextEncoder = towers.HFTextEncoder


def restore_compiler() -> None:
    """Put torch's own compiler in the place of what stands in for it."""
    for name in (COMPILER, f"{COMPILER}.utils"):
        if name in sys.modules and not hasattr(sys.modules[name], "__file__"):
            del sys.modules[name]
    importlib.import_module(COMPILER)


open_clip = _import_open_clip()
timm = importlib.import_module("timm")
hub = importlib.import_module("huggingface_hub")
