"""What a study will take before its first job: jobs, hours, disk and memory. Free of torch.

Jobs are what Snakemake's dry run lists, so that a study that is half done is planned for its other
half. Their hours are operations over speed; `describe_basis` says where both come from.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from foretune.core.config import CACHED_METHODS, PROBE_METHODS
from foretune.core.errors import ForetuneError
from foretune.core.grid import expand_grid
from foretune.planning.dataset_sizes import DatasetSize, get_dataset_sizes, get_image_bytes
from foretune.planning.job_resources import BASE, CORE, count_fitting_work, count_parameters

# Speeds that are assumed where nothing is timed, of an A100: operations a second in bf16
# training and in float32 passes, about a third and two thirds of what its data sheet has.
TRAINING, PASSES = 100e12, 12e12
DECODED = 150  # images of 224 pixels a second of a core, decoded and resized
STARTS = 5.0  # seconds until a job has torch and a model; others take one
# Forward and backward over forward alone, by method: weights' gradients cost one, too.
STEP = {"full": 3.0, "attention": 2.25, "bitfit": 2.0, "lora": 2.0}
GPU_RULES = {
    "embed_images", "embed_shard", "embed_shifted_test", "finetune_model", "evaluate_model"
}  # fmt: skip
# `model_costs.Cost` of a model that cannot be built here.
LIKE_B16 = (35e9, 6e9, 350e6, 110e6, 150_000_000, 224, 512)
# For Adam's two moments, SGD's one; beside weights and gradients, float32.
MOMENTS = {"adamw": 2, "sgd": 1}


@dataclass
class PlannedJob:
    rule: str
    wildcards: dict[str, str]


def read_jobs(printed: str) -> list[PlannedJob]:
    """The jobs of a dry run, as Snakemake prints them."""
    jobs = []
    for rule, block in re.findall(r"^rule (\w+):\n((?:    .*\n)+)", printed, re.M):
        found = re.search(r"^    wildcards: (.*)$", block, re.M)
        pairs = (pair.split("=", 1) for pair in found[1].split(", ")) if found else ()
        jobs.append(PlannedJob(rule, dict(pairs)))
    return jobs


class Plan:
    """Hours of a study's jobs, its disk and memory.

    costs: `model_costs.Cost` by model; speeds: operations a second by (model, method), and by
    (model, "passes"), where they were timed.
    """

    def __init__(self, study: dict, sizes: dict[str, DatasetSize], costs: dict, speeds: dict):
        self.study, self.sizes, self.costs, self.speeds = study, sizes, costs, speeds
        self.methods = study["methods"]
        self.tests = [name for name in sizes if name.split("/")[0] in study["datasets"]]

    def seconds(self, jobs: list[PlannedJob]) -> list[float]:
        """Of each job."""
        self.new_runs, self.new_tests = set(), set()
        for job in jobs:
            w = job.wildcards
            if job.rule == "finetune_model":
                self.new_runs.add((w["model"], w["method"], w["dataset"]))
            if job.rule.startswith("embed_"):
                test = "/".join(w[name] for name in ("dataset", "shift") if name in w)
                self.new_tests.add((w["model"], test))
        rules = {job.rule: getattr(self, job.rule, None) for job in jobs}
        return [rules[job.rule](**job.wildcards) if rules[job.rule] else 1.0 for job in jobs]

    def passes(self, model: str, images: int, captions: int = 0) -> float:
        cost = self.costs[model]
        work = images * cost.image + captions * cost.caption
        return work / self.speeds.get((model, "passes"), PASSES)

    def decoding(self, images: int, pixels: int = 224) -> float:
        return images / DECODED * (pixels / 224) ** 2

    def prepare_dataset(self, dataset: str) -> float:
        size = self.sizes[dataset]
        return 1 + self.decoding(size.train + size.val + size.test, 112)  # decoded, not resized

    def prepare_shifted_test(self, dataset: str, shift: str) -> float:
        return 1 + self.decoding(self.sizes[f"{dataset}/{shift}"].test, 112)

    def embed_images(self, model: str, dataset: str, shards: int = 1) -> float:
        size = self.sizes[dataset]
        images = (size.train + size.val + size.test) / shards
        prepared = self.decoding(images, self.costs[model].pixels)
        return STARTS + prepared + self.passes(model, images, size.classes)

    def embed_shard(self, model: str, dataset: str, shard: str, shards: str) -> float:
        return self.embed_images(model, dataset, int(shards))

    def embed_shifted_test(self, model: str, dataset: str, shift: str) -> float:
        images = self.sizes[f"{dataset}/{shift}"].test
        prepared = self.decoding(images, self.costs[model].pixels)
        return STARTS + prepared + self.passes(model, images)

    def embed_captions(self, model: str, dataset: str) -> float:
        if "caption" not in (self.study["datasets"] | self.study["forecast"]["datasets"])[dataset]:
            return 0.1  # the images' job did it
        return STARTS + self.passes(model, 0, self.sizes[dataset].classes)

    def measure_task(self, model: str, dataset: str) -> float:
        width = self.costs[model].width
        return 2 + self.sizes[dataset].train * width**2 * 20 / CORE

    def finetune_model(self, model: str, method: str, dataset: str, part: str) -> float:
        recipe, size, cost = self.methods[method], self.sizes[dataset], self.costs[model]
        steps = math.ceil(size.train / recipe["batch_size"])
        work = STEP[method] * (size.train * cost.image + steps * size.classes * cost.caption)
        epoch = work / self.speeds.get((model, method), TRAINING)
        epoch += self.passes(model, size.val, size.classes)
        return STARTS + self.epochs(recipe, int(part)) * epoch / self.gpus("finetune_model", model)

    def gpus(self, rule: str, model: str) -> int:
        """That a job takes."""
        if rule != "finetune_model":
            return int(rule in GPU_RULES)
        return self.study["models"][model]["gpus"]

    def epochs(self, recipe: dict, part: int) -> float:
        """Of all trials of a part; successive halving drops most of them early."""
        trials, search, epochs = len(expand_grid(recipe, part)), recipe["search"], recipe["epochs"]
        if search["kind"] != "halving":
            return trials * epochs
        rungs = [epochs / search["eta"] ** k for k in reversed(range(search["rungs"]))]
        spans = (later - earlier for earlier, later in zip([0, *rungs], rungs, strict=False))
        return sum(trials / search["eta"] ** k * span for k, span in enumerate(spans))

    def fit_cached(self, model: str, method: str, dataset: str, part: str) -> float:
        recipe, size, width = self.methods[method], self.sizes[dataset], self.costs[model].width
        trials = expand_grid(recipe, int(part))
        return 2.5 + count_fitting_work(recipe, trials, size.train, size.classes, width) / CORE

    def evaluate_model(self, model: str, method: str) -> float:
        """Of the pairs that are new: their checkpoint or their test is among the jobs."""
        coefficients = len(self.methods[method]["wise_ft"]) + 1
        seconds = STARTS
        for dataset in self.study["datasets"]:
            tuned = (model, method, dataset) in self.new_runs
            tests = [test for test in self.tests if tuned or (model, test) in self.new_tests]
            images = sum(self.sizes[test].test for test in tests)
            captions = sum(self.sizes[test].classes for test in tests)
            seconds += coefficients * self.passes(model, images, captions)
            if tuned:  # how far its own images' embeddings moved
                seconds += self.passes(model, self.sizes[dataset].train) + 1
        return seconds

    def evaluate_adapter(self, model: str, method: str) -> float:
        images = sum(self.sizes[test].test for test in self.tests)
        width = self.costs[model].width
        return 2 + len(self.study["datasets"]) * images * width * 200 / CORE

    def analyze_study(self) -> float:
        return 5 + 0.2 * len(self.study["models"]) * len(self.methods)

    def write_report(self) -> float:
        return 10 + 0.05 * len(self.study["models"]) * len(self.study["datasets"])

    def disk(self, results: Path = Path("results")) -> dict[str, float]:
        """Bytes by folder of results/, once all is done."""
        images = {k: size.train + size.val + size.test for k, size in self.sizes.items()}
        entries, files = self.study["datasets"] | self.study["forecast"]["datasets"], 0.0
        # A shard's job keeps no prepared images, but those that train and evaluate do.
        tuned = self.study["datasets"] if self.methods.keys() - CACHED_METHODS else ()
        shown = 0
        for name, size in self.sizes.items():
            dataset, _, shift = name.partition("/")
            entry, folder = entries[dataset], results / "datasets" / dataset
            if shift:
                entry, folder = entry["shifted"][shift], folder / "shifted" / shift
            files += get_image_bytes(entry, size, folder)
            shown += images[name] if entry.get("shards", 1) == 1 or dataset in tuned else 0
        vectors = sum(4 * cost.width for cost in self.costs.values()) * sum(images.values())
        # Models with one preprocessing share prepared images; by their size, one cannot tell less.
        pixels = {cost.pixels for cost in self.costs.values()}
        weights = sum(
            len(self.study["datasets"])
            * recipe["parts"]
            * self.trained_weights_bytes(model, method)
            for method, recipe in self.methods.items()
            for model in recipe["models"]
        )
        return {
            "datasets (images as they came)": files,
            "embeddings": vectors,
            "prepared (may be deleted)": sum(3 * p * p for p in pixels) * shown,
            "trials (trained weights)": weights,
        }

    def trained_weights_bytes(self, model: str, method: str) -> float:
        """Bytes of a trial's trained weights: all, or a share that the methods' ranks leave."""
        cost = self.costs[model]
        shares = {"full": 1, "attention": 0.25, "bitfit": 0.002, "lora": 0.01}
        if method in CACHED_METHODS:
            return 4 * cost.width * (100 if method in PROBE_METHODS else cost.width)
        # The best trial's file is a hard link of the state's.
        return 4 * cost.parameters * shares[method]

    def gpu_bytes(self) -> dict[tuple[str, str], float]:
        """Of a training step by (model, method): weights, gradients, moments, kept activations."""
        found = {}
        for method, recipe in self.methods.items():
            for model in recipe["models"] if method not in CACHED_METHODS else ():
                cost = self.costs[model]
                trained = cost.parameters if method == "full" else 0.05 * cost.parameters
                classes = max(self.sizes[name].classes for name in self.study["datasets"])
                share = recipe["batch_size"] / self.study["models"][model]["gpus"]
                activations = share * cost.image_bytes + classes * cost.caption_bytes
                fixed = 4 * (2 * cost.parameters + (1 + MOMENTS[recipe["optimizer"]]) * trained)
                # Counted as float32; mixed precision keeps half of that.
                found[model, method] = fixed + activations / (1 + (recipe["precision"] != "fp32"))
        return found


def plan_study(study: dict, jobs: list[PlannedJob], time_steps: bool = True, tflops=None) -> str:
    """The plan as text. study: as `check_config` gives it; jobs: of `read_jobs`."""
    if not jobs:
        return "Nothing is left to run."
    sizes = get_dataset_sizes(study)
    costs, speeds, notes = get_model_costs(study, sizes, time_steps, tflops)
    plan = Plan(study, sizes, costs, speeds)
    seconds, rows = plan.seconds(jobs), {}
    for job, each in zip(jobs, seconds, strict=True):
        row = rows.setdefault(job.rule, [0, 0.0, 0.0])
        row[0], row[1] = row[0] + 1, row[1] + each
        row[2] = max(row[2], each)
    rows.pop("all", None)  # it asks for the others
    lines = [f"{'':<22}{'jobs':>8}{'in all':>14}{'longest':>14}"]
    lines += [
        f"{rule:<22}{count:>8,}{format_duration(total):>14}{format_duration(longest):>14}"
        for rule, (count, total, longest) in sorted(rows.items())
    ]
    gpus = [plan.gpus(job.rule, job.wildcards.get("model")) for job in jobs]
    on_gpu = sum(each * n for each, n in zip(seconds, gpus, strict=True)) / 3600
    timed = zip(jobs, seconds, gpus, strict=True)
    rest = sum(each for job, each, n in timed if not n and job.rule != "all") / 3600
    lines += [
        "",
        f"GPU hours  {on_gpu:,.1f} (of jobs that ask for one)",
        f"CPU hours  {rest:,.1f}",
        "",
        "Disk, when all is done",
    ]
    lines += [f"  results/{name:<31}{size / 1e9:>8.1f} GB" for name, size in plan.disk().items()]
    needed = plan.gpu_bytes()
    if needed:
        (model, method), most = max(needed.items(), key=lambda item: item[1])
        lines += ["", f"GPU memory, at most  {most / 1e9:.1f} GB ({method} of {model})"]
    largest = max(cost.parameters for cost in costs.values())
    host = 1e9 + 4 * 4 * largest
    lines += [
        f"Memory of a job, at most  {host / 1e9:.1f} GB, and what the system caches of images"
    ]
    by_basis: dict[str, list[str]] = {}
    for name, size in sizes.items():
        by_basis.setdefault(size.basis, []).append(name)
    images = "; ".join(f"{basis}: {', '.join(names)}" for basis, names in by_basis.items())
    lines += ["", "Based on", *(f"  {note}" for note in notes), f"  numbers of images {images}"]
    return "\n".join(lines)


def format_duration(seconds: float) -> str:
    hours, left = divmod(round(seconds), 3600)
    return f"{hours:,} h {left // 60:02} min" if hours else f"{left // 60} min {left % 60:02} s"


def get_model_costs(
    study: dict, sizes: dict[str, DatasetSize], time_steps: bool, tflops: float | None
):
    """Each model's cost, the speeds that were timed, and what the estimate rests on."""
    from foretune.planning.model_costs import CPU, ModelCost, count_costs, time_images, time_step

    costs, speeds, notes, timed = {}, {}, [], []
    training = tflops * 1e12 if tflops else TRAINING
    classes = sorted(size.classes for size in sizes.values())[len(sizes) // 2]
    for model, spec in study["models"].items():
        try:
            cost = costs[model] = count_costs(spec)
        except ForetuneError as error:
            scale = count_parameters(spec) / BASE
            cost = costs[model] = ModelCost(*(scale * each for each in LIKE_B16[:5]), *LIKE_B16[5:])
            larger = f" with {scale:.1f} times the weights" if scale != 1 else ""
            notes.append(f"{model}: {error}: taken for a ViT-B/16{larger}")
        if tflops:
            speeds[model, "passes"] = tflops * 1e12 * PASSES / TRAINING
        weights = spec.get("folder", spec.get("pretrained"))  # a hub's model has neither
        if not time_steps or not weights or not Path(weights).exists():
            speeds |= {(model, method): training for method in STEP}
            continue
        speeds[model, "passes"] = cost.image / time_images(spec, 256)
        for method, recipe in study["methods"].items():
            if method in STEP and model in recipe["models"]:
                step = time_step(spec, method, recipe, expand_grid(recipe)[0], classes)
                batch = recipe["batch_size"] * cost.image + classes * cost.caption
                speeds[model, method] = STEP[method] * batch / step
        timed.append(model)
    if timed:
        where = "one CPU thread of this machine" if CPU else "this machine's GPU"
        notes.append(f"{', '.join(timed)}: 256 images and a step of each method, timed on {where}")
    if len(timed) < len(costs):
        speed = (
            f"{training / 1e12:g} TFLOP/s in training, {training / TRAINING * PASSES / 1e12:g} else"
        )
        others = [model for model in costs if model not in timed]
        notes.append(
            f"{', '.join(others)}: operations counted, without weights; "
            f"a GPU that does {speed} (an A100, assumed; TFLOPS=... sets it)"
        )
    notes.append(
        f"decoding {DECODED} images/s of 224 pixels, {CORE / 1e9:.0f} GFLOP/s a core, assumed"
    )
    return costs, speeds, notes
