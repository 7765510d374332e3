"""The jobs that a dry run lists, and how long each takes. Free of torch.

The time of a job is the number of its operations over a speed: both are in `model_costs`.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foretune.core.entries import Recipe
from foretune.core.grid import expand_grid
from foretune.core.variants import get_base_method
from foretune.planning.dataset_sizes import DatasetSize
from foretune.planning.job_resources import (
    CORE,
    PILOT_TESTED,
    count_drawn,
    count_fitting_work,
    count_step_captions,
)

if TYPE_CHECKING:  # it imports torch
    from foretune.planning.model_costs import ModelEstimates

# Operations per second that are assumed if nothing is timed: an A100's in training with bf16 and
# in float32 passes, about a third and two thirds of what its data sheet states.
TRAINING_SPEED, ENCODING_SPEED = 100e12, 12e12
DECODING_SPEED = 150  # images of 224 x 224 pixels per second and core, decoded and resized
START_SECONDS = 5.0  # until a job has loaded torch and a model; other jobs take one second
# Operations of a training step over those of its forward pass. The backward pass computes the
# gradients of the activations (1) and, in part or in full, those of the weights (up to 1).
STEP_FACTORS = {
    "full": 3.0, "flyp": 3.0, "lp_ft": 3.0, "attention": 2.25, "bitfit": 2.0, "lora": 2.0,
    "clip_lora": 2.0,
}  # fmt: skip
GPU_RULES = {
    "embed_images", "embed_shard", "embed_shifted_test", "embed_pooled", "embed_pooled_shard",
    "embed_pooled_shifted_test", "finetune_model", "evaluate_model", "evaluate_finished_models",
    "pilot_model",
}  # fmt: skip


@dataclass
class PlannedJob:
    rule: str
    wildcards: dict[str, str]


def read_jobs(printed: str) -> list[PlannedJob]:
    """Return the jobs that Snakemake printed in a dry run."""
    jobs = []
    for rule, block in re.findall(r"^rule (\w+):\n((?:    .*\n)+)", printed, re.M):
        line = re.search(r"^    wildcards: (.*)$", block, re.M)
        pairs = (pair.split("=", 1) for pair in line[1].split(", ")) if line else ()
        jobs.append(PlannedJob(rule, dict(pairs)))
    return jobs


def count_gpus(study: dict, job: PlannedJob) -> int:
    """Return how many GPUs a job takes."""
    if job.rule == "finetune_model":
        return study["models"][job.wildcards["model"]]["gpus"]
    return int(job.rule in GPU_RULES)


def count_epochs(recipe: Recipe, part: int) -> float:
    """Return the epochs of all trials in a part; successive halving stops most of them early."""
    trials, search, epochs = len(expand_grid(recipe, part)), recipe["search"], recipe["epochs"]
    if search["kind"] != "halving":
        return trials * epochs
    rungs = [epochs / search["eta"] ** k for k in reversed(range(search["rungs"]))]
    spans = (later - earlier for earlier, later in zip([0, *rungs], rungs, strict=False))
    return sum(trials / search["eta"] ** k * span for k, span in enumerate(spans))


def time_decoding(images: float, pixels: int = 224) -> float:
    return images / DECODING_SPEED * (pixels / 224) ** 2


class JobTimes:
    """Seconds of a study's jobs.

    A method that is named after a rule returns the seconds of one of the rule's jobs; its
    arguments are the rule's wildcards. A job of any other rule takes one second.
    """

    def __init__(self, study: dict, sizes: dict[str, DatasetSize], models: "ModelEstimates"):
        """`study` is a checked config, `sizes` comes from `get_dataset_sizes`."""
        self.study, self.sizes = study, sizes
        self.costs, self.speeds = models.costs, models.speeds
        self.methods = study["methods"]
        self.tests = [name for name in sizes if name.split("/")[0] in study["datasets"]]
        # (model, method, dataset) and (model, test) that the jobs train and embed.
        self.new_runs: set[tuple[str, str, str]] = set()
        self.new_tests: set[tuple[str, str]] = set()

    def estimate_seconds(self, jobs: list[PlannedJob]) -> list[float]:
        """Return the seconds of each job, given that all of them are run."""
        self.new_runs, self.new_tests = set(), set()
        for job in jobs:
            names = job.wildcards
            if job.rule == "finetune_model":
                self.new_runs.add((names["model"], names["method"], names["dataset"]))
            if job.rule.startswith("embed_") and "pooled" not in job.rule:
                test = "/".join(names[key] for key in ("dataset", "shift") if key in names)
                self.new_tests.add((names["model"], test))
        seconds = []
        for job in jobs:
            estimate: Callable[..., float] | None = getattr(self, job.rule, None)
            seconds.append(estimate(**job.wildcards) if estimate else 1.0)
        return seconds

    def time_encoding(self, model: str, images: float, captions: int = 0) -> float:
        cost = self.costs[model]
        work = images * cost.image + captions * cost.caption
        return work / self.speeds.get((model, "encoding"), ENCODING_SPEED)

    def prepare_dataset(self, dataset: str) -> float:
        # Images are decoded but not resized.
        return 1 + time_decoding(self.sizes[dataset].images, 112)

    def prepare_shifted_test(self, dataset: str, shift: str) -> float:
        return 1 + time_decoding(self.sizes[f"{dataset}/{shift}"].test, 112)

    def embed_images(self, model: str, dataset: str, shards: int = 1) -> float:
        size = self.sizes[dataset]
        images = size.images / shards
        decoding = time_decoding(images, self.costs[model].pixels)
        return START_SECONDS + decoding + self.time_encoding(model, images, size.classes)

    def embed_shard(self, model: str, dataset: str, shard: str, shards: str) -> float:
        return self.embed_images(model, dataset, int(shards))

    def embed_shifted_test(self, model: str, dataset: str, shift: str) -> float:
        images = self.sizes[f"{dataset}/{shift}"].test
        decoding = time_decoding(images, self.costs[model].pixels)
        return START_SECONDS + decoding + self.time_encoding(model, images)

    def embed_pooled(self, model: str, dataset: str) -> float:
        # The job that embeds the images decodes them.
        return START_SECONDS + self.time_encoding(model, self.sizes[dataset].images)

    def embed_pooled_shard(self, model: str, dataset: str, shard: str, shards: str) -> float:
        return self.embed_shard(model, dataset, shard, shards)

    def embed_pooled_shifted_test(self, model: str, dataset: str, shift: str) -> float:
        return START_SECONDS + self.time_encoding(model, self.sizes[f"{dataset}/{shift}"].test)

    def embed_captions(self, model: str, dataset: str) -> float:
        if "caption" not in (self.study["datasets"] | self.study["forecast"]["datasets"])[dataset]:
            return 0.1  # the job that embeds the images has embedded the source's own captions
        return START_SECONDS + self.time_encoding(model, 0, self.count_captions(dataset))

    def count_captions(self, dataset: str) -> int:
        """Return the captions of a dataset's classes, one per template."""
        entries = self.study["datasets"] | self.study["forecast"]["datasets"]
        caption = entries[dataset.split("/")[0]].get("caption", "")
        templates = len(caption) if isinstance(caption, list) else 1
        return templates * self.sizes[dataset].classes

    def measure_task(self, model: str, dataset: str) -> float:
        width = self.costs[model].width
        return 2 + self.sizes[dataset].train * width**2 * 20 / CORE

    def rehearse_task(self, model: str, dataset: str) -> float:
        # Two probes and three shares of the second, each in five folds.
        width = self.costs[model].width + self.costs[model].hidden_width
        return 2.5 + 25 * (self.sizes[dataset].train * width**2 + 10 * width**3) / CORE

    def finetune_model(self, model: str, method: str, dataset: str, part: str) -> float:
        recipe, size, cost = self.methods[method], self.sizes[dataset], self.costs[model]
        method = get_base_method(method)
        train = count_drawn(recipe, size.train, size.classes)
        steps = math.ceil(train / recipe["batch_size"])
        captions = count_step_captions(recipe, size.classes)
        forward = train * cost.image + steps * captions * cost.caption
        epoch = STEP_FACTORS[method] * forward / self.speeds.get((model, method), TRAINING_SPEED)
        epoch += self.time_encoding(
            model, count_drawn(recipe, size.val, size.classes), size.classes
        )
        probe = self.time_encoding(model, train) if "probe" in recipe else 0
        gpus = self.study["models"][model]["gpus"]
        return START_SECONDS + probe + count_epochs(recipe, int(part)) * epoch / gpus

    def pilot_model(self, model: str, method: str, dataset: str) -> float:
        recipe, cost = self.methods[method], self.costs[model]
        method = get_base_method(method)
        classes = self.sizes[dataset].classes
        epoch = math.ceil(self.sizes[dataset].train / recipe["batch_size"])
        steps = min(self.study["forecast"]["pilot"]["steps"], recipe["epochs"] * epoch)
        captions = count_step_captions(recipe, classes)
        step = recipe["batch_size"] * cost.image + captions * cost.caption
        training = steps * STEP_FACTORS[method] * step
        tested = min(PILOT_TESTED, self.sizes[dataset].train / 5) * math.ceil(steps / epoch)
        return (
            START_SECONDS
            + training / self.speeds.get((model, method), TRAINING_SPEED)
            + self.time_encoding(model, tested, classes)
        )

    def fit_cached(self, model: str, method: str, dataset: str, part: str) -> float:
        recipe, size, cost = self.methods[method], self.sizes[dataset], self.costs[model]
        width = cost.pooled_width if recipe.get("features") == "pooled" else cost.width
        trials = expand_grid(recipe, int(part))
        train = count_drawn(recipe, size.train, size.classes)
        return 2.5 + count_fitting_work(recipe, trials, train, size.classes, width) / CORE

    def evaluate_model(self, model: str, method: str) -> float:
        # Only pairs whose checkpoint or test is new are predicted; the others are kept.
        coefficients = len(self.methods[method]["wise_ft"]) + 1
        seconds = START_SECONDS
        for dataset in self.study["datasets"]:
            retrained = (model, method, dataset) in self.new_runs
            tests = [test for test in self.tests if retrained or (model, test) in self.new_tests]
            images = sum(self.sizes[test].test for test in tests)
            captions = sum(map(self.count_captions, tests))
            seconds += coefficients * self.time_encoding(model, images, captions)
            if self.study["temperature_scaling"] and tests:
                captions = self.sizes[dataset].classes
                validation = self.time_encoding(model, self.sizes[dataset].val, captions)
                seconds += coefficients * validation
            if retrained:  # the drift of its own training images
                seconds += self.time_encoding(model, self.sizes[dataset].train) + 1
        return seconds

    def evaluate_adapter(self, model: str, method: str) -> float:
        images = sum(self.sizes[test].test for test in self.tests)
        width = self.costs[model].width
        return 2 + len(self.study["datasets"]) * images * width * 200 / CORE

    def analyze_study(self) -> float:
        return 5 + 0.2 * len(self.study["models"]) * len(self.methods)

    def write_report(self) -> float:
        return 10 + 0.05 * len(self.study["models"]) * len(self.study["datasets"])
