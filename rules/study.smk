"""Check the config, and derive the study's run table and the wildcard constraints from it."""

import gc
import json
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import contains_wildcard

sys.path.insert(0, str(Path(workflow.basedir) / "workflow_scripts"))

from foretune.core.caption_templates import is_caption_file
from foretune.core.code_digest import remember_code_digests
from foretune.core.config import PROBE_METHODS, check_config, trains_on_embeddings
from foretune.core.errors import ForetuneError
from foretune.core.grid import list_parts
from foretune.core.locks import lock_results
from foretune.core.slurm import refuse_orphans
from foretune.core.study_file import read_study
from foretune.core.variants import average_name, get_base_method, parse_variant

# The thousands of job objects of a large study live until the end: with Python's default
# thresholds, garbage collection among them takes a fifth of a dry run.
gc.set_threshold(100_000, 20, 20)


code_digest = remember_code_digests(Path(".snakemake/foretune_code.json"))


def refuse_braces(study):
    """Raise ForetuneError for {name} in the path of an input: Snakemake sees a wildcard in it."""
    entries = [*study["datasets"].values(), *study["forecast"]["datasets"].values()]
    entries += [shifted for entry in entries for shifted in entry.get("shifted", {}).values()]
    paths = [entry.get("parquet") for entry in entries]
    paths += [e["caption"] for e in entries if is_caption_file(e.get("caption"))]
    paths += [
        spec.get(key) for spec in study["models"].values() for key in ("folder", "pretrained")
    ]
    paths += [path for files in study["embeddings"].values() for path in files.values()]
    paths += [study.get("outcomes"), study["forecast"].get("study")]
    for path in filter(None, paths):
        if contains_wildcard(str(path)):
            raise ForetuneError(
                f"{path}: Snakemake takes a name in braces for a wildcard; "
                "rename the file or folder"
            )


try:
    for path in workflow.configfiles:
        read_study(path)
    # The config with every default filled in.
    STUDY = check_config(config)
    refuse_braces(STUDY)
except ForetuneError as error:
    raise WorkflowError(f"The config is not valid:\n{error}") from None

# The names of the models, and of the datasets that are embedded, measured and fine-tuned on.
MODELS, DATASETS = list(STUDY["models"]), list(STUDY["datasets"])
# With accuracies from elsewhere, nothing is fine-tuned or evaluated.
TRAINS = "outcomes" not in STUDY
# Every dataset's entry, including those that are only measured and forecast.
DATASET_ENTRIES = STUDY["datasets"] | STUDY["forecast"]["datasets"]
# The run table: each (model, method) pair that the study trains.
RUNS = [
    (model, method)
    for model in MODELS
    for method, recipe in STUDY["methods"].items()
    if TRAINS and model in recipe["models"]
]
# Forecasts for a model rest on those of its runs that the study has.
TUNED = list(dict.fromkeys(model for model, method in RUNS))
FORECAST_MODELS = TUNED if TRAINS and "study" not in STUDY["forecast"] else MODELS
# Each test's folder below results/datasets/ and a model's embeddings -> its dataset: first the
# datasets' own tests, then the shifted ones.
TESTS = {dataset: dataset for dataset in DATASETS} | {
    f"{dataset}/shifted/{shift}": dataset
    for dataset in DATASETS
    for shift in STUDY["datasets"][dataset]["shifted"]
}
# The dataset of each test if its validation images set temperatures.
VALIDATED = list(TESTS.values()) if STUDY["temperature_scaling"] else []
# Methods that train the encoder on images, and those that train on cached embeddings.
FINETUNED_METHODS, FITTED_METHODS = (
    [method for method in STUDY["methods"] if trains_on_embeddings(method) == cached]
    for cached in (False, True)
)
# Those of the latter that have no head for the classes of another task.
PROBES = [method for method in FITTED_METHODS if get_base_method(method) in PROBE_METHODS]
# Those of the latter that read the image tower's output before its projection.
POOLED_PROBES = [name for name in PROBES if STUDY["methods"][name]["features"] == "pooled"]
# Priority of the jobs on the way to what is tested last, fine-tuned models. The short ones beside
# it (measures, fits on embeddings) can then fill the cores while the last long tests run.
LONG_WAY = 1
# The parts of each method's grid that have a trial; a job trains each.
PARTS = {name: list_parts(recipe) for name, recipe in STUDY["methods"].items()}
# Methods whose trials are split over several jobs, and datasets that several jobs embed.
SPLIT_METHODS = [name for name, recipe in STUDY["methods"].items() if recipe["parts"] > 1]
SHARDED_DATASETS = [name for name, entry in DATASET_ENTRIES.items() if entry["shards"] > 1]


def refuse_other_runs():
    """Stop before the first job if another run, or jobs of a killed one, write the same files."""
    try:
        lock_results()
        refuse_orphans(logger.info)
    except ForetuneError as error:
        raise WorkflowError(str(error)) from None


def one_of(names):
    """Return a wildcard constraint that matches any of the names, or nothing if there are none."""
    return "|".join(map(re.escape, names)) or r"(?!)"


def as_json(value):
    """Return `value` as JSON with sorted keys, because Snakemake compares params as text.

    A script gets what grows with a study on its standard input, from bash's own printf: Linux
    limits an argument to 128 KiB.
    """
    return json.dumps(value, sort_keys=True)


# These stand before the rules: Snakemake 9 drops the constraints of rules that were defined
# earlier when their files are in remote storage.
wildcard_constraints:
    model=one_of(MODELS),
    dataset=one_of(DATASET_ENTRIES),
    method=one_of(STUDY["methods"]),
    shift=one_of(shift for entry in STUDY["datasets"].values() for shift in entry["shifted"]),
    embedding=one_of(STUDY["embeddings"]),
    split="train|val|test",
    part=r"\d+",
