"""Write a fine-tuned model as a folder that open_clip loads by itself.

The folder has the layout of a repository on Hugging Face's hub: open_clip_config.json,
open_clip_model.safetensors and the tokenizer's files, if the tokenizer has any.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from foretune.core.entries import ModelSpec
from foretune.core.errors import ForetuneError
from foretune.core.files import write_json
from foretune.encoders.hub_models import find_hub_folder
from foretune.encoders.imports import open_clip
from foretune.encoders.loading import CONFIG_NAME, WEIGHTS_NAME, read_model_config
from foretune.evaluation.finetuned import BaseModel, FineTunedModel

OWN_PARTS = {"merges", "stem", "timm"}  # see encoders/loading.py
PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode")


def get_open_clip_config(spec: ModelSpec) -> dict[str, Any]:
    """Return open_clip's description of a model, its `model_cfg`.

    Raises:
        ForetuneError: open_clip cannot build the model, such as one with a convolutional stem.
    """
    if "architecture" in spec:
        config = open_clip.get_model_config(spec["architecture"])
        if "quick_gelu" in spec:
            config["quick_gelu"] = spec["quick_gelu"]
        return config
    folder = Path(spec["folder"]) if "folder" in spec else find_hub_folder(spec, weights=False)
    config = read_model_config(folder / CONFIG_NAME)
    if parts := sorted(config.get("foretune", {}).keys() & OWN_PARTS):
        raise ForetuneError(
            f"{folder}: has parts that open_clip cannot build ({', '.join(parts)}); only models of "
            "open_clip's own architectures can be exported"
        )
    return config["model_cfg"]


def export_model(spec: ModelSpec, trained_weights: Path, coefficient: float, output: Path) -> None:
    """Write the base model with a file of trained weights to an existing folder.

    coefficient: share of the trained weights, see `evaluation.finetuned.evaluate_model`.

    Raises:
        ForetuneError: as `get_open_clip_config`, or the weights are not of this model.
    """
    config = get_open_clip_config(spec)
    tuned = FineTunedModel(BaseModel(spec, Path(), Path()))
    tuned.choose(str(trained_weights), coefficient)
    model, _, tokenizer = tuned.get_model()
    # Copies, because a file of safetensors has no tensors that share their memory.
    tensors = {
        name: tensor.cpu().contiguous().clone() for name, tensor in model.state_dict().items()
    }
    save_file(tensors, output / WEIGHTS_NAME, {"format": "pt"})
    preprocess = {key: model.visual.preprocess_cfg[key] for key in PREPROCESS_KEYS}
    write_json({"model_cfg": config, "preprocess_cfg": preprocess}, output / CONFIG_NAME)
    if isinstance(tokenizer, open_clip.tokenizer.HFTokenizer):
        tokenizer.save_pretrained(output)
