"""Training on cached embeddings: probes and adapters, all trials of a grid together.

No image is read and no tower runs. Trials are trained in stacks of equal shapes; the trials of a
stack share every batch and no parameter.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from foretune.core.config import PROBE_METHODS
from foretune.core.errors import ForetuneError
from foretune.data.prepared import read_manifest
from foretune.encoders.cache import read_embeddings
from foretune.training.clip_adapter import make_adapter_stacks
from foretune.training.fit_stacks import LabelledVectors, fit_stacks
from foretune.training.linear_probe import StackedProbes
from foretune.training.lp_plus_plus import StackedLPPlusPlus
from foretune.training.stacked_trials import TrialStack
from foretune.training.text_probe import StackedTextProbes
from foretune.training.trials import (
    JobSpec,
    describe_divergence,
    write_results,
)


def fit_on_embeddings(job: JobSpec, embeddings: Path, log: Callable[[str], object] = print) -> None:
    """Train all trials of one (model, method, dataset) and write the job's three files.

    The best epoch of the best trial by validation accuracy is kept. A trial whose loss or weights
    are no longer finite ends there and is never selected.

    Args:
        embeddings: folder of the model's embedding caches of the dataset.
    """
    data, stacks = read_training_data(job, embeddings)
    name = f"{job.run['dataset']} {job.run['method']}"
    fitted = fit_stacks(stacks, data, job.recipe, job.seed, name, log)
    write_results(job, *fitted)
    result = describe_divergence(job.run)
    if fitted.best:
        result = f"best validation {fitted.best['val_accuracy']:.3f}"
    log(f"{name}: {len(job.trials)} trials, {result}")


def read_training_data(
    job: JobSpec, embeddings: Path
) -> tuple[dict[str, LabelledVectors], list[TrialStack]]:
    """Return the vectors of "train" and "val", and the job's trials in stacks.

    The vectors are of unit length for methods that compare them with captions as the model does.

    Raises:
        ForetuneError: a cache is missing its logit scale or was made from something else.
    """
    manifest, data = read_manifest(job.dataset), {}
    kind = "pooled" if job.recipe.get("features") == "pooled" else "images"
    for split in ("train", "val"):
        path = embeddings / f"{split}.parquet"
        images = read_embeddings(path, dataset=manifest["digest"], kind=kind)
        rows = job.draw_rows(split, images.columns["label"])
        labels = torch.from_numpy(images.columns["label"][rows].copy()).long()
        data[split] = LabelledVectors(torch.from_numpy(images.vectors[rows].copy()), labels)
    if job.method in PROBE_METHODS:  # which read no captions
        width = images.vectors.shape[1]
        return data, [StackedProbes(job.trials, width, len(manifest["classes"]))]
    path, weights = embeddings / "text.parquet", images.metadata["weights"]
    texts = read_embeddings(path, dataset=manifest["digest"], weights=weights)
    if "logit_scale" not in texts.metadata:
        raise ForetuneError(f"{path}: has no logit_scale; delete it and run again")
    captions, scale = torch.from_numpy(texts.vectors.copy()), texts.metadata["logit_scale"]
    if job.method == "clip_adapter":
        return data, [*make_adapter_stacks(job.trials, captions, scale, job.recipe, job.seed)]
    data = {split: part._replace(vectors=F.normalize(part.vectors)) for split, part in data.items()}
    if job.method == "text_probe":
        return data, [StackedTextProbes(job.trials, captions, scale)]
    momentum = job.recipe["momentum"]
    return data, [StackedLPPlusPlus(job.trials, captions, *data["train"], momentum)]
