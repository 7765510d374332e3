"""Functions for the resources of jobs: memory and time by the size of the model and its data.

Each further attempt at a job asks for more. Snakemake asks again right before a job starts if the
files that tell its size did not exist when the workflow was planned.
"""

from foretune.planning.job_resources import (
    CORE,
    DEFAULT_WIDTH,
    ENCODED,
    POOLED_WIDTH,
    count_drawn,
    count_fitting_work,
    count_pilot_images,
    count_training_images,
    count_weight_copies,
    get_memory_mb,
    get_minutes,
)

# Most partitions would never start a job that asks for more minutes. A training job that runs out
# of time resumes after its last epoch.
MAX_TRAINING_MINUTES = 24 * 60


def per_attempt(amount):
    """Return a resource function that asks for `amount` times the number of the attempt."""
    return lambda wildcards, attempt: amount * attempt


def list_sizes_mb(files):
    """Return the size of each file. Snakemake's own list of them takes a millisecond per job."""
    if any(file.is_storage for file in files):
        return files.size_files_mb
    return [Path(file).stat().st_size / 2**20 for file in files]


def memory_by_size(copies=0, trains=False, per_gpu=False):
    """Return a function that asks for mem_mb by a job's inputs and `copies` of its model's weights.

    If the job `trains`, its method tells the copies. With `per_gpu`, each GPU's process needs as
    much.
    """

    def get_mem_mb(wildcards, input, attempt):
        weights = count_weight_copies(wildcards.method) if trains else copies
        spec = STUDY["models"][wildcards.model] if weights else None
        sizes = list(zip(input, list_sizes_mb(input)))
        images_mb = sum(size for file, size in sizes if "results/datasets/" in file)
        trained_mb = [size for file, size in sizes if file.endswith("trained_weights.safetensors")]
        # Fine-tuned models are loaded one at a time.
        most_trained_mb = max(trained_mb, default=0)
        other_mb = sum(size for _, size in sizes) - images_mb - sum(trained_mb) + most_trained_mb
        processes = spec["gpus"] if per_gpu else 1
        return attempt * get_memory_mb(other_mb, spec, weights, images_mb) * processes

    return get_mem_mb


def get_tables_mb(wildcards, attempt):
    """Return the MB to join the accuracies of a study: each model's on each test takes 3 kB."""
    return attempt * (1000 + 3 * len(RUNS) * len(DATASETS) * len(TESTS) // 1000)


def count_images(manifest, *names):
    """Count the images of a prepared dataset, of all its splits or of those that are named."""
    splits = json.loads(Path(manifest).read_text())["splits"]
    return sum(split["rows"] for name, split in splits.items() if name in (names or splits))


def get_encoding_minutes(wildcards, input, attempt):
    """Return the minutes to encode a whole dataset, or one of its shards."""
    images = count_images(input.manifest) / int(wildcards.get("shards", 1))
    return attempt * get_minutes(STUDY["models"][wildcards.model], ENCODED * images)


def get_evaluation_minutes(wildcards, input, attempt):
    """Return the minutes to test all models that a method fine-tuned, and their interpolations.

    Each fine-tuned model also encodes its own training images, to measure the embedding drift.
    """
    models = len(DATASETS) * (1 + len(STUDY["methods"][wildcards.method]["wise_ft"]))
    images = sum(
        models * count_images(manifest, "test") + count_images(manifest, "train")
        for manifest in input.manifests
    )
    return attempt * get_minutes(STUDY["models"][wildcards.model], ENCODED * images)


def get_training_minutes(wildcards, input, attempt):
    """Return the minutes to train one job's trials on the model's GPUs."""
    spec, recipe = STUDY["models"][wildcards.model], STUDY["methods"][wildcards.method]
    manifest = json.loads(Path(input.manifest).read_text())
    trials = len(expand_grid(recipe, int(wildcards.part)))
    images = count_training_images(recipe, trials, manifest) / spec["gpus"]
    return min(MAX_TRAINING_MINUTES, attempt * get_minutes(spec, images))


def get_pilot_minutes(wildcards, input, attempt):
    """Return the minutes to train and test a pilot."""
    recipe = STUDY["methods"][wildcards.method]
    manifest = json.loads(Path(input.manifest).read_text())
    images = count_pilot_images(recipe, STUDY["forecast"]["pilot"]["steps"], manifest)
    return attempt * get_minutes(STUDY["models"][wildcards.model], images)


def get_fitting_minutes(wildcards, input, attempt):
    """Return the minutes to train one job's trials on cached embeddings, on one core."""
    recipe = STUDY["methods"][wildcards.method]
    manifest = json.loads(Path(input.manifest).read_text())
    trials, classes = expand_grid(recipe, int(wildcards.part)), len(manifest["classes"])
    train = count_drawn(recipe, manifest["splits"]["train"]["rows"], classes)
    width = POOLED_WIDTH if wildcards.method in POOLED_PROBES else DEFAULT_WIDTH
    work = count_fitting_work(recipe, trials, train, classes, width)
    return attempt * (60 + round(work / CORE / 60))
