"""Run every method on every family of the bundled suite; show parameters, time and accuracy.

The jobs are those of the default study with its recipes (config.yaml), on three bundled tasks. All
families are trained with the learning rates that the study uses for its CLIP.
"""

import json
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
import yaml
from safetensors import safe_open

from common import ROOT, write_table
from foretune.core.config import CACHED_METHODS, check_config
from foretune.core.grid import expand_grid
from foretune.data.prepare import prepare_dataset
from foretune.encoders.encode import embed_captions, embed_images
from foretune.training.finetune import finetune
from foretune.training.on_embeddings import fit_on_embeddings
from foretune.training.trials import JobSpec

TASKS = ("emoji", "shapes", "flags")
FAMILIES = ("clip", "siglip", "coca", "eva02")


def count_parameters(trained_weights: Path) -> int:
    """Return how many values a safetensors file has, without its scalars."""
    with safe_open(trained_weights, "pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    return sum(int(torch.Size(shape).numel()) for shape in shapes if len(shape))


def main() -> None:
    torch.set_num_threads(1)
    study = yaml.safe_load((ROOT / "config.yaml").read_text())
    for recipe in study["methods"].values():
        recipe.pop("models", None)
    del study["measures"]  # its sources name the study's own models
    study["models"] = {name: {"folder": str(ROOT / "resources/mini" / name)} for name in FAMILIES}
    study["datasets"] = {task: {"parquet": str(ROOT / f"resources/mini/{task}.parquet")}
                         for task in TASKS}  # fmt: skip
    study = check_config(study)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for task in TASKS:
            prepare_dataset(task, study["datasets"][task], folder / task, seed=0)
        for family in FAMILIES:
            spec = study["models"][family]
            for task in TASKS:
                caches = folder / family / task
                embed_images(spec, folder / task, caches, folder / "prepared", lambda line: None)
                embed_captions(spec, folder / task, None, caches / "text.parquet")
            for method, recipe in study["methods"].items():
                row = {"method": method, "family": family}
                paces = []
                for task in TASKS:
                    caches, output = folder / family / task, folder / family / method / task
                    run = {"model": family, "method": method, "dataset": task}
                    trials = expand_grid(recipe)
                    job = JobSpec(run, recipe, trials, 0, folder / task, output)
                    started = time.perf_counter()
                    if method in CACHED_METHODS:
                        fit_on_embeddings(job, caches, log=lambda line: None)
                        # All trials at once: what an epoch of one of them took of it.
                        epochs = len(trials) * recipe["epochs"]
                        paces.append((time.perf_counter() - started) / epochs)
                    else:
                        text, prepared = caches / "text.parquet", folder / "prepared"
                        finetune(job, spec, text, prepared, lambda line: None)
                        pace = pd.read_parquet(output / "epochs.parquet").images_per_second
                        rows_of = json.loads((folder / task / "dataset.json").read_text())
                        paces.append(rows_of["splits"]["train"]["rows"] / pace.median())
                    best = json.loads((output / "best.json").read_text())
                    row[task] = f"{best['val_accuracy']:.3f}"
                parameters = count_parameters(output / "trained_weights.safetensors")
                row = {**row, "trained parameters": f"{parameters:,}"}
                row["seconds an epoch"] = " ".join(f"{pace:.3g}" for pace in paces)
                rows.append(row)
                print(row, flush=True)
    write_table(
        "methods", "Methods by family", rows,
        f"Best validation accuracy on {', '.join(TASKS)}, and seconds of a training epoch on each, "
        "on one thread (methods on cached embeddings train all trials together: their seconds are "
        "divided by the number of trials). The trained parameters are counted without the logit "
        f"scale and bias; those of the probe depend on the number of classes, here of {TASKS[-1]}.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
