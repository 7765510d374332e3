"""Time 48 trials on cached embeddings compared with one: the bare loop, and the whole job.

Writes trials_together.md. Everything runs on one thread, like a job, and processor time is
measured, which other load on the machine changes little. The caches are those of bundled datasets
by the mini CLIP (d = 128), and random ones of a real model's size.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "workflow_scripts"))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from foretune.core.files import write_json  # noqa: E402
from foretune.core.grid import expand_grid  # noqa: E402
from foretune.data.prepare import prepare_dataset  # noqa: E402
from foretune.encoders.cache import read_task_embeddings, write_embeddings  # noqa: E402
from foretune.encoders.encode import embed_captions, embed_images  # noqa: E402
from foretune.training.clip_adapter import make_adapter_stacks  # noqa: E402
from foretune.training.linear_probe import StackedProbes  # noqa: E402
from foretune.training.on_embeddings import draw_batches  # noqa: E402
from foretune.training.stacked_trials import StackedOptimizer  # noqa: E402

COMMAND = "python benchmarks/trials_together.py"
RECIPE = {
    "optimizer": "sgd", "momentum": 0.9, "schedule": "constant", "warmup_epochs": 0,
    "label_smoothing": 0, "ratio": 0.2,
}  # fmt: skip
GRIDS = {
    "linear_probe": {
        "learning_rate": [10.0**-k for k in range(6)],
        "weight_decay": [10.0**-k for k in range(1, 9)],
    },
    "clip_adapter": {
        "learning_rate": [1e-2, 1e-3, 1e-4, 1e-5],
        "weight_decay": [1e-3, 1e-4, 1e-5],
        "reduction": [4, 8, 16, 32],
    },
}
LOOPS, JOBS = 7, 3  # runs of each
# dataset, epochs of a whole job (few if 48 trials would take minutes), batch sizes
SIZES = [("mnist", 30, (32, 128)), ("letters", 30, (128,)), ("random", 3, (128,))]


def bundled_caches(name: str, folder: Path) -> None:
    spec = {"folder": str(ROOT / "resources/mini/clip")}
    source = {"parquet": ROOT / f"resources/mini/{name}.parquet"}
    prepare_dataset(name, source, folder / "dataset", seed=0)
    embed_images(spec, folder / "dataset", folder / "embeddings")
    embed_captions(spec, folder / "dataset", None, folder / "embeddings/text.parquet")


def random_caches(name: str, folder: Path, width=512, classes=100, train=5000, val=500) -> None:
    rng = np.random.default_rng(0)
    write_json({"digest": name}, folder / "dataset/dataset.json")
    metadata = {"dataset": name, "weights": name, "logit_scale": 100.0}
    for split, n in (("train", train), ("val", val), ("text", classes)):
        labels = rng.integers(classes, size=n) if split != "text" else np.arange(n)
        vectors = rng.normal(size=(n, width))
        path = folder / f"embeddings/{split}.parquet"
        write_embeddings(path, vectors, {"label": labels.astype(np.int32)}, metadata)


def bare_loop(method: str, folder: Path, trials: list[dict], batch_size: int, steps: int):
    """Prepare the training of the trials; return a function that returns its seconds per step."""
    digest = json.loads((folder / "dataset/dataset.json").read_text())["digest"]
    images, texts = read_task_embeddings(folder / "embeddings", "train", digest)
    vectors = torch.from_numpy(images.vectors.copy())
    labels = torch.from_numpy(images.columns["label"].copy()).long()
    captions, scale = torch.from_numpy(texts.vectors.copy()), texts.metadata["logit_scale"]
    if method == "linear_probe":
        stacks = [StackedProbes(trials, vectors.shape[1], len(captions))]
    else:
        stacks = make_adapter_stacks(trials, captions, scale, RECIPE, 0)
    optimizers = [StackedOptimizer(RECIPE, stack.trials, stack.parameters) for stack in stacks]
    batches = draw_batches(len(labels), batch_size, seed=0, epoch=0)[:steps]

    def run() -> float:
        started = time.process_time()
        for stack, optimizer in zip(stacks, optimizers, strict=True):
            for batch in batches:
                _, gradients = stack.losses(vectors[batch], labels[batch], 0)
                optimizer.step(gradients, len(batches))
        return (time.process_time() - started) / len(batches)

    run()  # the first is slower
    return run


def whole_job(method: str, folder: Path, trials: list[dict], batch_size: int, epochs: int) -> float:
    """Return the seconds of the workflow's script, with the start of Python and torch."""
    recipe = {**RECIPE, "epochs": epochs, "batch_size": batch_size}
    command = [
        sys.executable, ROOT / "workflow_scripts/fit_cached.py", "--model", "m", "--method",
        method, "--dataset-name", "d", "--recipe", json.dumps(recipe), "--trials",
        json.dumps(trials), "--seed", "0", "--dataset", folder / "dataset", "--embeddings",
        folder / "embeddings", "--output", folder / "out",
    ]  # fmt: skip
    started = spent_by_children()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return spent_by_children() - started


def spent_by_children() -> float:
    """Return the processor seconds (user and system) of all child processes so far."""
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def medians(one, many, runs: int) -> tuple[float, float]:
    """Return the medians of two functions' results, called in turn."""
    pairs = [(one(), many()) for _ in range(runs)]
    return tuple(statistics.median(times) for times in zip(*pairs, strict=True))


def measure(folder: Path) -> list[str]:
    lines = []
    for name, epochs, batch_sizes in SIZES:
        (random_caches if name == "random" else bundled_caches)(name, folder / name)
        digest = json.loads((folder / name / "dataset/dataset.json").read_text())["digest"]
        images, texts = read_task_embeddings(folder / name / "embeddings", "train", digest)
        n, width = images.vectors.shape
        size = f"{name}: N = {n}, d = {width}, C = {len(texts.vectors)}"
        for method in GRIDS:
            every = expand_grid({"parts": 1, "search": {"kind": "grid"}, **GRIDS[method]})
            for batch_size in batch_sizes:
                where, steps = (method, folder / name), 40 if name != "random" else 10
                loops = [bare_loop(*where, trials, batch_size, steps)
                         for trials in (every[:1], every)]  # fmt: skip
                one, many = medians(*loops, LOOPS)
                bare = f"{one * 1e3:.2f} | {many * 1e3:.2f} | {many / one:.1f}"
                jobs = [partial(whole_job, *where, trials, batch_size, epochs)
                        for trials in (every[:1], every)]  # fmt: skip
                one, many = medians(*jobs, JOBS)
                job = f"{epochs} | {one:.2f} | {many:.2f} | {many / one:.2f}"
                lines.append(f"| {method} | {size} | {batch_size} | {bare} | {job} |")
                print(lines[-1], flush=True)
    return lines


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(Path(folder))
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.processor(),
    )  # fmt: skip
    text = f"""# 48 trials compared with one, on cached embeddings

`{COMMAND}` made this table. It shows processor time of one thread of {cpu}, torch
{torch.__version__}; medians of {LOOPS} runs of each loop and {JOBS} of each job, one trial and 48
in turn. The machine's load was {os.getloadavg()[2]:.1f} (mean of 15 minutes), of which 1 is this
benchmark.

linear_probe: 6 learning rates x 8 weight decays. clip_adapter: 4 learning rates x 3 weight decays x
the reductions 4, 8, 16 and 32; the single trial has reduction 4. The bare loop is forward, backward
and SGD with momentum on batches from memory. The whole job is the workflow's script with the
start of Python and torch, reading, validation after each epoch, and writing.

| method | caches | batch | step: 1, ms | 48, ms | ratio | epochs | job: 1, s | 48, s | ratio |
|---|---|---|---|---|---|---|---|---|---|
"""
    Path(__file__).with_suffix(".md").write_text(text + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
