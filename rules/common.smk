"""The config checked, the run table, wildcard constraints, and what `all` asks for."""

import gc
import json
import re
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "workflow_scripts"))

from foretune.core.code_digest import code_digest
from foretune.core.config import (
    CACHED_METHODS,
    JOB_KEYS,
    PROBE_METHODS,
    SOURCE_KEYS,
    check_config,
    read_study,
)
from foretune.core.errors import ForetuneError
from foretune.core.files import digest_json
from foretune.core.grid import expand_grid
from foretune.core.locks import lock_results
from foretune.core.slurm import refuse_orphans

# Thousands of jobs are objects that live to the end: looking for garbage among them takes a fifth
# of a large study's dry run.
gc.set_threshold(100_000, 20, 20)

try:
    for path in workflow.configfiles:
        read_study(path)
    STUDY = check_config(config)
except ForetuneError as error:
    raise WorkflowError(f"The config is not right:\n{error}") from None

MODELS, DATASETS, METHODS = list(STUDY["models"]), list(STUDY["datasets"]), list(STUDY["methods"])
TUNED = [method for method in METHODS if method not in CACHED_METHODS]
FITTED = [method for method in METHODS if method in CACHED_METHODS]
# Methods whose trials are split over several jobs.
SPLIT = [method for method in METHODS if STUDY["methods"][method]["parts"] > 1]
# Datasets that are measured and never fine-tuned.
FORECAST = list(STUDY["forecast"]["datasets"])
ENTRIES = STUDY["datasets"] | STUDY["forecast"]["datasets"]
SHARDED = [dataset for dataset, entry in ENTRIES.items() if entry["shards"] > 1]
RUNS = [
    (model, method)
    for model in MODELS
    for method in METHODS
    if model in STUDY["methods"][method]["models"]
]
SHIFTED = [
    (dataset, shift) for dataset in DATASETS for shift in STUDY["datasets"][dataset]["shifted"]
]
# Every test, as the folder that it has in results/datasets and among a model's embeddings, and
# beside it the dataset that it is a test of.
TESTS = [*DATASETS, *(f"{dataset}/shifted/{shift}" for dataset, shift in SHIFTED)]
TEST_PARENTS = [*DATASETS, *(dataset for dataset, _ in SHIFTED)]


def begin_alone():
    """Stop before the first job where another run, or what is left of one, writes the same files."""
    try:
        lock_results()
        refuse_orphans(logger.info)
    except ForetuneError as error:
        raise WorkflowError(str(error)) from None


def one_of(names):
    """A wildcard constraint; one that nothing matches where there are no names."""
    return "|".join(map(re.escape, names)) or r"(?!)"


# Before any rule: Snakemake 9 forgets the constraints of earlier rules whose files are in a storage.
wildcard_constraints:
    model=one_of(MODELS),
    dataset=one_of(ENTRIES),
    method=one_of(METHODS),
    shift=one_of([shift for _, shift in SHIFTED]),
    embedding=one_of(STUDY["embeddings"]),
    split="train|val|test",
    part=r"\d+",


def as_json(value):
    """Params are compared as text: sorted keys make equal settings equal."""
    return json.dumps(value, sort_keys=True)


# What a job that measures needs of the config; the sources of EMMS are files.
MEASURE_OPTIONS = as_json({k: v for k, v in STUDY["measures"].items() if k != "emms_sources"})


def embedding_files(wildcards):
    files = STUDY["embeddings"][wildcards.embedding]
    return {"labels": []} | {name: local(file) for name, file in files.items()}


def entry_of(wildcards):
    """The config's entry of a dataset, or of one of its shifted tests."""
    entry = ENTRIES[wildcards.dataset]
    return entry["shifted"][wildcards.shift] if "shift" in wildcards.keys() else entry


def source_file(wildcards):
    """A Parquet source is an input; a folder's images are too many to list."""
    parquet = entry_of(wildcards).get("parquet")
    return local(parquet) if parquet else []


def dataset_spec(wildcards):
    """What fixes the rows of a dataset; its caption, licence and source do not."""
    spec = entry_of(wildcards)
    return as_json({k: v for k, v in spec.items() if k in SOURCE_KEYS})


def folder_listing(wildcards):
    """Digest of a folder's files by path, size and time: a changed image or tar is noticed.

    Of a public dataset's folder it is not made: what is published does not change, and listing
    SUN397's would take longer than all else that a dry run does. Of a table it is of that file.
    """
    entry = entry_of(wildcards)
    kinds = ("folder", "webdataset", "huggingface")
    named = next((entry[kind] for kind in kinds if kind in entry), None)
    own = named and entry.get("root", named) == named  # a folder, not a hub's name
    files = sorted(Path(named).rglob("*")) if own else []
    files += [Path(entry["table"])] if "table" in entry else []
    facts = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    return digest_json(facts)


def shard_files(wildcards):
    """The embeddings of every shard of a dataset by one model."""
    return expand(
        "results/embeddings/{model}/{dataset}/shards/{shard}-{shards}/{file}.parquet",
        model=wildcards.model,
        dataset=wildcards.dataset,
        shard=range(entry_of(wildcards)["shards"]),
        shards=entry_of(wildcards)["shards"],
        file=["train", "val", "test", "own_text"],
    )


def model_files(wildcards):
    """The files that a local model is read from, so that other weights make its jobs rerun."""
    return files_of_model(wildcards.model)


@cache
def files_of_model(model):
    spec = STUDY["models"][model]
    if "folder" in spec:
        names = ("*.json", "*.safetensors", "*.gz")
        files = sorted(str(f) for name in names for f in Path(spec["folder"]).glob(name))
        return [local(file) for file in files]
    weights = spec.get("pretrained", "")
    return [local(weights)] if Path(weights).is_file() else []


def model_spec(wildcards):
    """A model's entry, but for what says how its jobs run and changes no number."""
    spec = STUDY["models"][wildcards.model]
    return as_json({k: v for k, v in spec.items() if k not in JOB_KEYS})


def recipe(wildcards):
    """A method's settings without its lists: the grid's points come as trials."""
    settings = STUDY["methods"][wildcards.method]
    return as_json({k: v for k, v in settings.items() if not isinstance(v, list) and k != "parts"})


def trials(wildcards):
    return as_json(expand_grid(STUDY["methods"][wildcards.method], int(wildcards.part)))


def captions_of_adapter(wildcards):
    """A probe has a head of its own and reads no caption."""
    if wildcards.method in PROBE_METHODS:
        return []
    return f"results/embeddings/{wildcards.model}/{wildcards.dataset}/text.parquet"


def parts_of(wildcards):
    """The best.json of every part of a method's grid, for one model and dataset."""
    return [
        f"results/trials/{wildcards.model}/{wildcards.method}/{wildcards.dataset}/{part}/best.json"
        for part in range(STUDY["methods"][wildcards.method]["parts"])
    ]


def selections(model, method):
    """The selected trial of each dataset: the best of the parts, or of the only one."""
    folder = (
        "results/selected/{}/{}/{}.json"
        if method in SPLIT
        else "results/trials/{}/{}/{}/0/best.json"
    )
    return [folder.format(model, method, dataset) for dataset in DATASETS]


def selections_of(wildcards):
    return selections(wildcards.model, wildcards.method)


def get_trained_weights(wildcards):
    """The weights that a method's selections name, which they tell by path and digest."""
    return [
        f"results/trials/{wildcards.model}/{wildcards.method}/{dataset}/{part}/trained_weights.safetensors"
        for dataset in DATASETS
        for part in range(STUDY["methods"][wildcards.method]["parts"])
    ]


SELECTIONS = [path for run in RUNS for path in selections(*run)]
EVALUATIONS = [
    f"results/evaluations/{model}/{method}.parquet"
    for model, method in [*((model, "zero_shot") for model in MODELS), *RUNS]
]
DRIFTS = [
    f"results/evaluations/{model}/{method}_drift.parquet"
    for model, method in RUNS
    if method in TUNED
]
CLASS_EVALUATIONS, CONFUSIONS = (
    [f"{path.removesuffix('.parquet')}_{kind}.parquet" for path in EVALUATIONS]
    for kind in ("classes", "confusions")
)
MEASURED = expand("results/measures/{model}/{dataset}.json", model=MODELS, dataset=DATASETS)
FORECAST_MEASURED = expand(
    "results/measures/{model}/{dataset}.json", model=MODELS, dataset=FORECAST
)
FORECAST_TABLES = expand(
    "results/forecast/{table}.parquet", table=["forecasts", "rankings"] if FORECAST else []
)
# Of this study, or of another one's results on this machine.
FORECAST_TASKS = (
    local(str(Path(STUDY["forecast"]["study"], "analysis/tasks.parquet")))
    if "study" in STUDY["forecast"]
    else "results/analysis/tasks.parquet"
)
MEASURED_EMBEDDINGS = expand("results/measures/{name}.json", name=STUDY["embeddings"])
MANIFESTS = expand("results/datasets/{test}/dataset.json", test=TESTS)
TRIALS = [
    f"results/trials/{model}/{method}/{dataset}/{part}"
    for model, method in RUNS
    for dataset in DATASETS
    for part in range(STUDY["methods"][method]["parts"])
]
EPOCHS = [f"{folder}/epochs.parquet" for folder in TRIALS]


def final_output():
    """The report and every intermediate that is kept: one that is lost is made again."""
    return [
        "results/report.html",
        "results/provenance.json",
        "results/analysis/statistics.json",
        "results/analysis/paper_tables.md",
        *expand(
            "results/analysis/{table}.{kind}",
            table=[
                "outcomes",
                "class_accuracy",
                "confusions",
                "tasks",
                "wise_ft",
                "measures",
                "curves",
                "drift",
                "statistics",
                "differences",
                "pooled",
                "paper_tables",
                "findings",
                "findings_evidence",
            ],
            kind=["parquet", "csv"],
        ),
        *FORECAST_MEASURED,
        *FORECAST_TABLES,
        *(path.replace(".parquet", ".csv") for path in FORECAST_TABLES),
        *expand(
            "results/figures/{figure}.svg",
            figure=[
                "models",
                "methods",
                "trade_off",
                "training",
                *(f"accuracy_{model}" for model in MODELS),
            ],
        ),
        *MANIFESTS,
        *expand(
            "results/datasets/{dataset}/{split}.parquet",
            dataset=DATASETS,
            split=["train", "val"],
        ),
        *expand("results/datasets/{test}/test.parquet", test=TESTS),
        *MEASURED,
        *MEASURED_EMBEDDINGS,
        *expand(
            "{folder}/{file}",
            folder=TRIALS,
            file=["epochs.parquet", "best.json", "trained_weights.safetensors"],
        ),
        *SELECTIONS,
        *EVALUATIONS,
        *CLASS_EVALUATIONS,
        *CONFUSIONS,
        *DRIFTS,
        *expand(
            "results/embeddings/{model}/{dataset}/{file}.parquet",
            model=MODELS,
            dataset=DATASETS,
            file=["train", "val", "own_text", "text"],
        ),
        *expand("results/embeddings/{model}/{test}/test.parquet", model=MODELS, test=TESTS),
    ]
