"""Functions of a job's wildcards that return its inputs, or the part of the config that it uses."""

from functools import cache

from foretune.core.config import JOB_KEYS, SOURCE_KEYS
from foretune.core.grid import expand_grid
from foretune.data.sources.listing import digest_folder
from foretune.data.sources.table import digest_table_files


def get_dataset_entry(wildcards):
    """Return the config's entry of a dataset, or of one of its shifted tests."""
    entry = DATASET_ENTRIES[wildcards.dataset]
    return entry["shifted"][wildcards.shift] if "shift" in wildcards.keys() else entry


def get_source_file(wildcards):
    """Return the Parquet file of a dataset; a folder's images are too many to list as inputs."""
    parquet = get_dataset_entry(wildcards).get("parquet")
    return local(parquet) if parquet else []


def get_dataset_spec(wildcards):
    """Return the keys of a dataset's entry that fix its rows, so without caption and licence."""
    entry = get_dataset_entry(wildcards)
    return as_json({key: value for key, value in entry.items() if key in SOURCE_KEYS})


def get_folder_digest(wildcards):
    """Return a digest of the paths, sizes and times of a source's files, to notice changed ones.

    The files of a public dataset are left out: they do not change once published, and listing
    those of SUN397 takes longer than the rest of a dry run.
    """
    entry = get_dataset_entry(wildcards)
    folder_kinds = ("folder", "webdataset", "huggingface")
    name = next((entry[kind] for kind in folder_kinds if kind in entry), None)
    if "table" in entry:
        return digest_table_files(entry)
    # Otherwise it names a hub's dataset.
    return digest_folder(name) if name and entry.get("root", name) == name else ""


def get_shards(wildcards):
    """Return the embeddings of every shard of a dataset by one model."""
    shards = get_dataset_entry(wildcards)["shards"]
    return expand(
        "results/embeddings/{model}/{dataset}/shards/{shard}-{shards}/{file}.parquet",
        model=wildcards.model,
        dataset=wildcards.dataset,
        shard=range(shards),
        shards=shards,
        file=["train", "train_hidden", "val", "test", "own_text"],
    )


def get_model_files(wildcards):
    """Return the files of a local model, so that its jobs rerun when its weights change."""
    return list_model_files(wildcards.model)


@cache  # hundreds of jobs ask for the same model
def list_model_files(model):
    """Return the files that the model `model` of the config is read from; none for a hub's."""
    spec = STUDY["models"][model]
    if "folder" in spec:
        patterns = ("*.json", "*.safetensors", "*.gz")
        files = (file for pattern in patterns for file in Path(spec["folder"]).glob(pattern))
        return [local(file) for file in sorted(map(str, files))]
    weights = spec.get("pretrained", "")
    return [local(weights)] if Path(weights).is_file() else []


def get_model_spec(wildcards):
    """Return a model's entry without the keys that change how its jobs run but no number."""
    spec = STUDY["models"][wildcards.model]
    return as_json({key: value for key, value in spec.items() if key not in JOB_KEYS})


def get_dataset_captions(wildcards):
    """Return the embeddings of a dataset's own captions, unless the config gives a template."""
    if "caption" in DATASET_ENTRIES[wildcards.dataset]:
        return []
    return f"results/embeddings/{wildcards.model}/{wildcards.dataset}/own_text.parquet"


def get_caption_template(wildcards):
    """Return the caption template of the config, or `null` for the dataset's own captions."""
    return as_json(DATASET_ENTRIES[wildcards.dataset].get("caption"))


def get_external_embeddings(wildcards):
    """Return the files of embeddings that were computed elsewhere."""
    files = STUDY["embeddings"][wildcards.embedding]
    return {"labels": []} | {name: local(file) for name, file in files.items()}


def get_measure_options(wildcards):
    """Return the options of the measures; the sources of EMMS are input files instead."""
    options = STUDY["measures"].items()
    return as_json({key: value for key, value in options if key != "emms_sources"})


def get_recipe(wildcards):
    """Return a method's settings without its lists, whose product is the grid of trials."""
    recipe = STUDY["methods"][wildcards.method].items()
    return as_json({k: v for k, v in recipe if not isinstance(v, list) and k != "parts"})


def get_trials(wildcards):
    """Return the points of a method's grid that one job trains."""
    return as_json(expand_grid(STUDY["methods"][wildcards.method], int(wildcards.part)))


def get_adapter_captions(wildcards):
    """Return the caption embeddings that an adapter trains on; a probe has its own head."""
    if wildcards.method in PROBE_METHODS:
        return []
    return f"results/embeddings/{wildcards.model}/{wildcards.dataset}/text.parquet"


def get_part_selections(wildcards):
    """Return the best.json of each part of a method's grid, for one model and dataset."""
    return expand(
        "results/trials/{model}/{method}/{dataset}/{part}/best.json",
        **wildcards,
        part=range(STUDY["methods"][wildcards.method]["parts"]),
    )


def get_selections(wildcards):
    """Return the selected trial of each dataset, for one model and method."""
    return list_selections(wildcards.model, wildcards.method)


def get_trained_weights(wildcards):
    """Return the weights that the selections of a method name by their path and digest."""
    return expand(
        "results/trials/{model}/{method}/{dataset}/{part}/trained_weights.safetensors",
        model=wildcards.model,
        method=wildcards.method,
        dataset=DATASETS,
        part=range(STUDY["methods"][wildcards.method]["parts"]),
    )
