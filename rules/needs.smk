"""What each rule's jobs ask for: by the size of the model and data, and more with every attempt.

Where the files that tell are not made yet, Snakemake asks again before the job.
"""

import json

from foretune.planning.job_resources import (
    CORE,
    ENCODED,
    count_fitting_work,
    count_training_images,
    get_memory_mb,
    get_minutes,
)

# Minutes that a training asks for at most, or it would wait for ever in most partitions: out of
# time, it goes on at its last epoch.
LONGEST = 24 * 60


def memory_for(copies=0, per_gpu=False):
    """mem_mb by the size of a job's inputs and so many copies of its model's weights."""

    def mem_mb(wildcards, input, attempt):
        spec = STUDY["models"][wildcards.model] if copies else None
        sizes = list(zip(input, input.size_files_mb))
        images = sum(size for file, size in sizes if "results/datasets/" in file)
        read = sum(size for _, size in sizes) - images
        return (
            attempt * get_memory_mb(read, spec, copies, images) * (spec["gpus"] if per_gpu else 1)
        )

    return mem_mb


def images_of(manifest, *splits):
    """How many a prepared dataset has, in all or in some splits."""
    found = json.loads(Path(manifest).read_text())["splits"]
    return sum(each["rows"] for name, each in found.items() if name in (splits or found))


def time_to_encode(wildcards, input, attempt):
    """Of the whole dataset, or of one of its shards."""
    images = images_of(input.manifest) / int(wildcards.get("shards", 1))
    return attempt * get_minutes(STUDY["models"][wildcards.model], ENCODED * images)


def time_to_evaluate(wildcards, input, attempt):
    """Every test by every model that the method has tuned, and by those on the way to it.

    Each tuned model also embeds its own training images, to tell how far they moved.
    """
    models = len(DATASETS) * (1 + len(STUDY["methods"][wildcards.method]["wise_ft"]))
    images = sum(
        models * images_of(each, "test") + images_of(each, "train") for each in input.manifests
    )
    return attempt * get_minutes(STUDY["models"][wildcards.model], ENCODED * images)


def time_to_train(wildcards, input, attempt):
    spec, recipe = STUDY["models"][wildcards.model], STUDY["methods"][wildcards.method]
    manifest = json.loads(Path(input.manifest).read_text())
    trials = len(expand_grid(recipe, int(wildcards.part)))
    images = count_training_images(recipe, trials, manifest) / spec["gpus"]
    return min(LONGEST, attempt * get_minutes(spec, images))


def time_to_fit(wildcards, input, attempt):
    """Of a method on cached embeddings, on one core."""
    recipe = STUDY["methods"][wildcards.method]
    manifest = json.loads(Path(input.manifest).read_text())
    trials, train = expand_grid(recipe, int(wildcards.part)), manifest["splits"]["train"]["rows"]
    work = count_fitting_work(recipe, trials, train, len(manifest["classes"]))
    return attempt * (60 + round(work / CORE / 60))
