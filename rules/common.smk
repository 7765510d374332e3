"""The config checked, the run table, wildcard constraints, and what `all` asks for."""

import json
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "workflow_scripts"))

from foretune.config import PROBES, check_config, code_digest, expand_grid
from foretune.files import ForetuneError

try:
    STUDY = check_config(config)
except ForetuneError as error:
    raise WorkflowError(f"The config is not right:\n{error}") from None

MODELS, DATASETS, METHODS = list(STUDY["models"]), list(STUDY["datasets"]), list(STUDY["methods"])
TUNED = [method for method in METHODS if method not in PROBES]
PROBED = [method for method in METHODS if method in PROBES]


def one_of(names):
    """A wildcard constraint; one that nothing matches where there are no names."""
    return "|".join(map(re.escape, names)) or r"(?!)"


wildcard_constraints:
    model=one_of(MODELS),
    dataset=one_of(DATASETS),
    method=one_of(METHODS),
    split="train|val|test",
    part=r"\d+",


def as_json(value):
    """Params are compared as text: sorted keys make equal settings equal."""
    return json.dumps(value, sort_keys=True)


def source_file(wildcards):
    """A Parquet source is an input; a folder's images are too many to list."""
    spec = STUDY["datasets"][wildcards.dataset]
    return spec.get("parquet", [])


def dataset_spec(wildcards):
    """What fixes the rows of a dataset; its caption does not."""
    spec = STUDY["datasets"][wildcards.dataset]
    return as_json({key: value for key, value in spec.items() if key != "caption"})


def model_spec(wildcards):
    return as_json(STUDY["models"][wildcards.model])


def recipe(wildcards):
    """A method's settings without its lists, whose points come as trials."""
    settings = STUDY["methods"][wildcards.method]
    return as_json({k: v for k, v in settings.items() if not isinstance(v, list) and k != "parts"})


def trials(wildcards):
    return as_json(expand_grid(STUDY["methods"][wildcards.method], int(wildcards.part)))


def parts_of(wildcards):
    """The best.json of every part of a method's grid, for one model and dataset."""
    return [
        f"results/trials/{wildcards.model}/{wildcards.method}/{wildcards.dataset}/{part}/best.json"
        for part in range(STUDY["methods"][wildcards.method]["parts"])
    ]


SELECTIONS = expand(
    "results/selected/{model}/{method}/{dataset}.json",
    model=MODELS,
    method=METHODS,
    dataset=DATASETS,
)
EVALUATIONS = expand(
    "results/evaluations/{model}/{method}/{dataset}.parquet",
    model=MODELS,
    method=["zero_shot", *METHODS],
    dataset=DATASETS,
)
MEASURED = expand("results/measures/{model}/{dataset}.json", model=MODELS, dataset=DATASETS)
MANIFESTS = expand("results/datasets/{dataset}/dataset.json", dataset=DATASETS)
EPOCHS = [
    f"results/trials/{model}/{method}/{dataset}/{part}/epochs.parquet"
    for model in MODELS
    for method in METHODS
    for dataset in DATASETS
    for part in range(STUDY["methods"][method]["parts"])
]


def final_output():
    """The report and every intermediate that is kept: one that is lost is made again."""
    return [
        "results/report.html",
        "results/analysis/statistics.json",
        *MANIFESTS,
        *MEASURED,
        *EPOCHS,
        *SELECTIONS,
        *EVALUATIONS,
        *expand(
            "results/embeddings/{model}/{dataset}/{file}.parquet",
            model=MODELS,
            dataset=DATASETS,
            file=["train", "val", "test", "text"],
        ),
    ]
