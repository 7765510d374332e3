"""What each rule's jobs ask for: by the size of the model and data, and more with every attempt.

Where the files that tell are not made yet, Snakemake asks again before the job.
"""

import json

from foretune.needs import memory, minutes, training_images


def memory_for(copies=0, per_gpu=False):
    """mem_mb by the size of a job's inputs and so many copies of its model's weights."""

    def mem_mb(wildcards, input, attempt):
        spec = STUDY["models"][wildcards.model] if copies else None
        return attempt * memory(input.size_mb, spec, copies) * (spec["gpus"] if per_gpu else 1)

    return mem_mb


def images_of(manifest):
    return sum(split["rows"] for split in json.loads(Path(manifest).read_text())["splits"].values())


def time_to_encode(wildcards, input, attempt):
    spec = STUDY["models"][wildcards.model]
    return attempt * minutes(spec, images_of(input.manifest) / 3)


def time_to_evaluate(wildcards, input, attempt):
    """Every test by every model that the method has tuned, and by those on the way to it."""
    models = len(DATASETS) * (1 + len(STUDY["methods"][wildcards.method]["wise_ft"]))
    images = models * sum(map(images_of, input.manifests))
    return attempt * minutes(STUDY["models"][wildcards.model], images / 3)


def time_to_train(wildcards, input, attempt):
    spec, recipe = STUDY["models"][wildcards.model], STUDY["methods"][wildcards.method]
    manifest = json.loads(Path(input.manifest).read_text())
    trials = len(expand_grid(recipe, int(wildcards.part)))
    return attempt * minutes(spec, training_images(recipe, trials, manifest) / spec["gpus"])
