"""Functions of a job's wildcards that return its inputs, or the part of the config that it uses."""

import inspect
from functools import cache

from foretune.core.config import SOURCE_KEYS, drop_job_keys, get_source_kind
from foretune.core.caption_templates import is_caption_file
from foretune.core.content_digests import ContentDigests
from foretune.core.files import digest_json
from foretune.core.grid import expand_grid, grid_points
from foretune.data.sources.listing import digest_folder
from foretune.data.sources.registry import get_known_source
from foretune.data.sources.table import digest_table_files

CONTENTS = ContentDigests(Path(".snakemake/foretune_digests.json"))


def of_wildcards(function):
    """Return an input function that calls `function` once for the same values of the wildcards.

    Each parameter of `function` is named after a wildcard, and None if a job lacks it.
    Thousands of jobs share a model or a method. Snakemake reads the signature at each call, which
    takes longer than the call itself unless the signature is stored.
    """
    names, cached = list(inspect.signature(function).parameters), cache(function)

    def call(wildcards):
        return cached(*[wildcards.get(name) for name in names])

    call.__signature__ = inspect.signature(call)
    return call


def by_content(path):
    """Return a user's file as an input whose time does not count; see `digest_contents`."""
    return ancient(local(str(path)))


def digest_contents(*paths):
    """Return a digest of the contents of a user's files, which notices a change of any time."""
    return digest_json([CONTENTS.digest(path) for path in paths])


def get_dataset_entry(dataset, shift=None):
    """Return the config's entry of a dataset, or of one of its shifted tests."""
    entry = DATASET_ENTRIES[dataset]
    return entry["shifted"][shift] if shift else entry


@of_wildcards
def get_source_file(dataset, shift):
    """Return the Parquet file of a dataset; a folder's images are too many to list as inputs."""
    parquet = get_dataset_entry(dataset, shift).get("parquet")
    return by_content(parquet) if parquet else []


@of_wildcards
def get_dataset_spec(dataset, shift):
    """Return the keys of a dataset's entry that fix its rows, so without caption and licence."""
    entry = get_dataset_entry(dataset, shift)
    return as_json({key: value for key, value in entry.items() if key in SOURCE_KEYS})


@of_wildcards
def get_folder_digest(dataset, shift):
    """Return a digest of the paths, sizes and times of a source's files, to notice changed ones.

    The files of a public dataset are left out: they do not change once published, and listing
    those of SUN397 takes longer than the rest of a dry run.
    """
    entry = get_dataset_entry(dataset, shift)
    folder_kinds = ("folder", "webdataset", "huggingface")
    name = next((entry[kind] for kind in folder_kinds if kind in entry), None)
    if "table" in entry:
        return digest_table_files(entry)
    # Otherwise it names a hub's dataset.
    return digest_folder(name) if name and entry.get("root", name) == name else ""


@of_wildcards
def get_source_content(dataset, shift):
    """Return a digest of a Parquet file, or of what foretune knows of a public dataset.

    The latter are such things as the names of classes and captions, which no input file has.
    """
    entry = get_dataset_entry(dataset, shift)
    registry = {"torchvision": "torchvision", "webdataset": "hub", "huggingface": "hub"}
    kind = get_source_kind(entry)
    known = get_known_source(registry[kind], entry[kind]) if kind in registry else {}
    files = [entry["parquet"]] if kind == "parquet" else []
    return digest_json([known, digest_contents(*files)])


def list_shards(folder, dataset, files):
    """List the files of every shard of a dataset in a folder of embeddings."""
    shards = get_dataset_entry(dataset)["shards"]
    return [
        f"{folder}/shards/{shard}-{shards}/{file}.parquet"
        for shard in range(shards)
        for file in files
    ]


@of_wildcards
def get_shards(model, dataset):
    """Return the embeddings of every shard of a dataset by one model."""
    files = ["train", "train_hidden", "val", "test", "own_text"]
    return list_shards(f"results/embeddings/{model}/{dataset}", dataset, files)


@of_wildcards
def get_pooled_shards(model, dataset):
    """Return the pooled outputs of every shard of a dataset by one model."""
    folder = f"results/embeddings/{model}/{dataset}/pooled"
    return list_shards(folder, dataset, ["train", "val", "test"])


def list_validation(folder):
    """Return the file of the validation images of each test's dataset, if they set temperatures."""
    return expand(f"{folder}/val.parquet", dataset=VALIDATED)


def list_model_files(model):
    """Return the files of a local model, so that its jobs rerun when its weights change."""
    spec = STUDY["models"][model]
    if "folder" in spec:
        suffixes = {".json", ".safetensors", ".bin", ".pth", ".gz", ".txt", ".model"}
        files = (str(f) for f in Path(spec["folder"]).glob("*") if f.suffix in suffixes)
        return [by_content(file) for file in sorted(files)]
    weights = spec.get("pretrained", "")
    return [by_content(weights)] if Path(weights).is_file() else []


get_model_files = of_wildcards(list_model_files)


@of_wildcards
def get_model_digest(model):
    """Return a digest of the contents of a local model's files."""
    return digest_contents(*list_model_files(model))


@of_wildcards
def get_model_spec(model):
    """Return a model's entry without the keys that change how its jobs run but no number."""
    return as_json(drop_job_keys(STUDY["models"][model]))


@of_wildcards
def get_model_specs():
    """Return the entries of all models as `get_model_spec` does, by name."""
    return as_json({name: drop_job_keys(spec) for name, spec in STUDY["models"].items()})


@of_wildcards
def get_encode_batch_size(model):
    """Return a model's images per forward pass. A resource, because its change reruns nothing."""
    return STUDY["models"][model]["encode_batch_size"]


@of_wildcards
def get_dataset_captions(model, dataset):
    """Return the embeddings of a dataset's own captions, unless the config gives a template."""
    if "caption" in DATASET_ENTRIES[dataset]:
        return []
    return f"results/embeddings/{model}/{dataset}/own_text.parquet"


@of_wildcards
def get_caption(dataset):
    """Return the config's caption: templates, or a file; `null` for the dataset's own template."""
    return as_json(DATASET_ENTRIES[dataset].get("caption"))


@of_wildcards
def get_caption_file(dataset):
    """Return the file of captions per class that the config names, if it does."""
    caption = DATASET_ENTRIES[dataset].get("caption")
    return by_content(caption) if is_caption_file(caption) else []


@of_wildcards
def get_caption_digest(dataset):
    """Return a digest of the contents of the file of captions per class, if there is one."""
    caption = DATASET_ENTRIES[dataset].get("caption")
    return digest_contents(caption) if is_caption_file(caption) else ""


@of_wildcards
def get_external_embeddings(embedding):
    """Return the files of embeddings that were computed elsewhere."""
    files = STUDY["embeddings"][embedding]
    return {"labels": []} | {name: by_content(file) for name, file in files.items()}


@of_wildcards
def get_external_digest(embedding):
    """Return a digest of the contents of embeddings that were computed elsewhere."""
    return digest_contents(*STUDY["embeddings"][embedding].values())


def get_other_study_digest():
    """Return a digest of the tasks of the other study that forecasts rest on, if there is one."""
    study = STUDY["forecast"].get("study")
    return digest_contents(Path(study, "analysis/tasks.parquet")) if study else ""


@of_wildcards
def get_measure_options():
    """Return the options of the measures; the sources of EMMS are input files instead."""
    options = STUDY["measures"].items()
    return as_json({key: value for key, value in options if key != "emms_sources"})


@of_wildcards
def get_recipe(method):
    """Return a method's settings without its lists, whose product is the grid of trials."""
    recipe = STUDY["methods"][method].items()
    return as_json({k: v for k, v in recipe if not isinstance(v, list) and k != "parts"})


@of_wildcards
def get_seed(method):
    """Return the seed of a method's training: its variant's, or the study's."""
    return STUDY["methods"][method].get("seed", STUDY["seed"])


@of_wildcards
def get_trials(method, part):
    """Return the points of a method's grid that one job trains."""
    return as_json(expand_grid(STUDY["methods"][method], int(part)))


@of_wildcards
def get_pilot_trial(method):
    """Return the point of a method's grid that its pilots train: the middle one."""
    points = grid_points(STUDY["methods"][method])
    return as_json([points[len(points) // 2]])


def list_features(model, method, tests, split):
    """List the image features that a method on cached embeddings reads, a file per test."""
    name = f"pooled/{split}" if method in POOLED_PROBES else split
    return [f"results/embeddings/{model}/{test}/{name}.parquet" for test in tests]


def get_features(split, tests=None):
    """Return an input function: the features that a method reads, of its dataset or of `tests`."""

    def get_files(model, method, dataset):
        if tests is None:
            return list_features(model, method, [dataset], split)[0]
        return list_features(model, method, tests, split)

    return of_wildcards(get_files)


@of_wildcards
def get_adapter_captions(model, method, dataset):
    """Return the caption embeddings that an adapter trains on; a probe has its own head."""
    if method in PROBES:
        return []
    return f"results/embeddings/{model}/{dataset}/text.parquet"


@of_wildcards
def get_adapter_command(method):
    """Return the command that tests an adapter, at each WiSE-FT coefficient if it has some."""
    coefficients = STUDY["methods"][method].get("wise_ft")
    wise_ft = ["--wise-ft", *map(str, coefficients)] if coefficients else []
    return " ".join(["adapter", *wise_ft, "--selections"])


@of_wildcards
def get_part_selections(model, method, dataset):
    """Return the best.json of each part of a method's grid, for one model and dataset."""
    return list_part_files(model, method, dataset, "best.json")


@of_wildcards
def get_selections(model, method):
    """Return the selected trial of each dataset, for one model and method."""
    return list_selections(model, method)


@of_wildcards
def get_trained_weights(model, method):
    """Return the weights that the selections of a method name by their path and digest."""
    return [
        path
        for dataset in DATASETS
        for path in list_part_files(model, method, dataset, "trained_weights.safetensors")
    ]
