"""Time a training step against the bare loop, and the effect of each switch, on this machine.

The job's epochs are those of training.trainer on a bundled task with a bundled encoder. The bare
loop does forward, backward and optimizer step on batches of one tensor that lies in memory,
normalized beforehand, and nothing else.
"""

import copy
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from common import ROOT, compare, write_table
from foretune.core.config import check_config
from foretune.core.grid import expand_grid
from foretune.data.prepare import prepare_dataset
from foretune.encoders.encode import embed_captions, encode_images
from foretune.encoders.image_cache import load_batch
from foretune.encoders.loading import encode_text
from foretune.encoders.zero_shot import classification_logits
from foretune.training.methods import make_trainable
from foretune.training.optim import make_optimizer
from foretune.training.trainer import Trainer, set_train_mode
from foretune.training.trials import JobSpec

TASK = ROOT / "resources/mini/shapes.parquet"
FAMILIES = ("clip", "siglip", "coca", "eva02")


def make_trainer(folder: Path, family: str = "clip", **recipe) -> tuple[Trainer, dict]:
    spec = {"folder": str(ROOT / "resources/mini" / family)}
    study = {
        "models": {family: spec}, "datasets": {"shapes": {"parquet": str(TASK)}},
        "methods": {"full": {
            "learning_rate": [5.0e-4], "optimizer": "adamw", "batch_size": 32, "epochs": 4, **recipe
        }},
    }  # fmt: skip
    settings = check_config(study)["methods"]["full"]
    text = folder / f"{family}.parquet"
    if not (folder / "dataset").exists():
        prepare_dataset("shapes", {"parquet": TASK}, folder / "dataset", seed=0)
    if not text.exists():
        embed_captions(spec, folder / "dataset", None, text)
    run = {"model": family, "method": "full", "dataset": "shapes"}
    trials = expand_grid(settings)
    job = JobSpec(run, settings, trials, 0, folder / "dataset", folder / "out")
    return Trainer(job, spec, text, folder / "prepared", log=lambda line: None), trials[0]


def epoch_of(trainer: Trainer, trial: dict):
    """One training epoch, as the job does it (validation is timed apart, so left out)."""
    trainable = make_trainable(trainer.model, "full", trainer.recipe)
    optimizer = make_optimizer(trainer.recipe, trial, list(trainable.parameters.values()))
    trainer.validate = lambda: 0.0
    return lambda: trainer.train_epoch(trial, 0, optimizer, trainable)


def bare_epoch(trainer: Trainer, trial: dict):
    model, size = copy.deepcopy(trainer.model), trainer.recipe["batch_size"]
    trained = list(make_trainable(model, "full", trainer.recipe).parameters.values())
    optimizer = make_optimizer(trainer.recipe, trial, trained)
    images = trainer.preprocess.normalize(torch.from_numpy(np.array(trainer.images["train"])))
    labels = trainer.labels["train"]

    def epoch():
        set_train_mode(model)
        for start in range(0, len(labels), size):
            vectors = model.encode_image(images[start : start + size], normalize=False)
            logits = classification_logits(model, vectors, encode_text(model, trainer.tokens))
            optimizer.zero_grad()
            F.cross_entropy(logits, labels[start : start + size]).backward()
            optimizer.step()

    return epoch


def loader_share(trainer: Trainer, epoch_seconds: float) -> float:
    order = np.random.default_rng(0).permutation(len(trainer.labels["train"]))
    size = trainer.recipe["batch_size"]
    started = time.perf_counter()
    for rows in np.array_split(order, range(size, len(order), size)):
        trainer.preprocess.normalize(load_batch(trainer.images["train"], rows, "cpu"))
    return (time.perf_counter() - started) / epoch_seconds


def main() -> None:
    torch.set_num_threads(1)
    compiled = "--compile" in sys.argv  # minutes of compilation
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for family in FAMILIES:
            trainer, trial = make_trainer(folder, family)
            times = compare({"bare": bare_epoch(trainer, trial), "job": epoch_of(trainer, trial)})
            n = len(trainer.labels["train"])
            rows.append({
                "what": f"{family}: the job compared with the bare loop",
                "images/s": f"{n / times['job']:.0f}",
                "alternative, images/s": f"{n / times['bare']:.0f}",
                "time, ratio": f"{times['job'] / times['bare']:.3f}",
            })  # fmt: skip
            rows.append({
                "what": f"{family}: share of the data loader, from the second epoch on",
                "time, ratio": f"{loader_share(trainer, times['job']):.3f}",
            })  # fmt: skip
        trainer, trial = make_trainer(folder)
        channels_last = make_trainer(folder)[0]
        layout = {"memory_format": torch.channels_last}
        channels_last.model = channels_last.model.to(**layout)
        normalize = channels_last.preprocess.normalize
        channels_last.preprocess.normalize = lambda images: normalize(images).contiguous(**layout)
        switches = {
            "as it is": epoch_of(trainer, trial),
            "bf16 autocast": epoch_of(*make_trainer(folder, precision="bf16")),
            "with channels_last": epoch_of(channels_last, trial),
            "with an optimizer that is not fused": unfused(*make_trainer(folder)),
            "image tower only (text tower frozen)": epoch_of(*make_trainer(folder, towers="image")),
        }
        if compiled:
            switches["torch.compile"] = epoch_of(*make_trainer(folder, compile=True))
        times = compare(switches)
        rows += ratios(times, "as it is", n)
        images = trainer.images["train"]
        model = trainer.model.eval()
        times = compare({
            size: lambda size=size: encode_images(model, trainer.preprocess, images, size)
            for size in (16, 64, 256)
        })  # fmt: skip
        rows += ratios({f"embedding by batches of {k}": v for k, v in times.items()},
                       "embedding by batches of 64", n)  # fmt: skip
    write_table(
        "training", "Training and embedding", rows,
        "Medians of 5 runs in turn, on one thread, on the bundled task `shapes`; batch 32, AdamW. "
        "The row for torch.compile comes with `--compile`; compilation itself is not in it.",
    )  # fmt: skip


def ratios(times: dict[str, float], alternative: str, n: int) -> list[dict]:
    """A row for each time of n images, beside that of the alternative."""
    beside = times[alternative]
    return [
        {"what": f"clip, {name}", "images/s": f"{n / value:.0f}",
         "alternative, images/s": f"{n / beside:.0f}", "time, ratio": f"{value / beside:.2f}"}
        for name, value in times.items()
    ]  # fmt: skip


def unfused(trainer: Trainer, trial: dict):
    trainable = make_trainable(trainer.model, "full", trainer.recipe)
    optimizer = torch.optim.AdamW(list(trainable.parameters.values()), lr=5e-4)
    trainer.validate = lambda: 0.0
    return lambda: trainer.train_epoch(trial, 0, optimizer, trainable)


if __name__ == "__main__":
    main()
