"""Check a study's config against the schema, and fill in the defaults.

Free of torch, because every dry run imports it.
"""

import ast
import copy
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from foretune.core.caption_templates import read_caption
from foretune.core.class_halves import expand_class_halves
from foretune.core.entries import ModelSpec, Recipe, SourceSpec
from foretune.core.errors import ForetuneError
from foretune.core.grid import grid_points
from foretune.core.outcomes_file import check_outcomes
from foretune.core.schema_errors import format_schema_error, suggest_name
from foretune.core.study_file import copy_as_json
from foretune.core.untrusted import check_condition
from foretune.core.variants import expand_variants, get_base_method

CONFIG_SCHEMA = Path(__file__).with_name("config.schema.yaml")
MEASURES_ROOM = Path(__file__).parents[1] / "measures"
# The methods that train on cached embeddings.
CACHED_METHODS = ("linear_probe", "text_probe", "lp_plus_plus", "clip_adapter")
# Those of them that train a classifier for their own task and leave the embeddings as they are, and
# those that read no captions, so that they predict no class of another task.
HEAD_METHODS = ("linear_probe", "text_probe", "lp_plus_plus")
PROBE_METHODS = ("linear_probe",)
# The keys of a model's entry that say how its jobs run. They change no number.
JOB_KEYS = ("gpus", "encode_batch_size", "parameters")
# The kinds of image sources, and the keys of their own that entries of each kind may have.
SOURCE_KINDS = {
    "parquet": (),
    "folder": (),
    "table": ("image", "label", "group", "splits"),
    "torchvision": ("root",),
    "webdataset": ("root", "revision", "splits"),
    "huggingface": ("root", "revision", "splits", "subset", "image", "label", "group"),
}
# The keys that determine a dataset's rows: where they come from, and the classes.
SOURCE_KEYS = {*SOURCE_KINDS, "classes", "class_half"}.union(*SOURCE_KINDS.values())
# JSON Schema accepts 1.0 as an integer and NaN as a number. A training loop does not.
VALIDATOR = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: type(value) is int,
            "number": lambda _, value: (
                type(value) is int or (type(value) is float and math.isfinite(value))
            ),
        }
    ),
)


def check_config(config: dict) -> dict:
    """Check a config and return a copy with all defaults filled in.

    Each method with `shots` or `seeds` becomes several, and a dataset with halves of its classes
    becomes two; see `variants.expand_variants` and `class_halves.expand_class_halves`.

    Raises:
        ForetuneError: the config has mistakes. The message has one line per mistake, and each
            line names the key.
    """
    schema = yaml.safe_load(CONFIG_SCHEMA.read_text())
    config = copy_as_json(config, "")
    errors = list(VALIDATOR(schema).iter_errors(config))
    if errors:
        lines = sorted({line for error in errors for line in format_schema_error(error)})
        raise ForetuneError("\n".join(lines))
    fill_defaults(config, schema, schema)
    if not config["datasets"] and not config["without_images"]:
        raise ForetuneError("datasets: a study needs at least one")
    config["datasets"] = expand_class_halves(config["datasets"])
    check_methods(config)
    config["methods"] = expand_variants(config["methods"])
    check_forecast(config)
    check_measure_names(config)
    for where, entry in iterate_sources(config):
        check_source(where, entry)
        if "caption" in entry:
            source = entry.get("torchvision", entry.get("webdataset", entry.get("huggingface", "")))
            names = [where.split(".")[-1], source]
            entry["caption"] = read_caption(where, entry["caption"], names)
        set_source_root(where, entry, config["data"])
    check_paths(config)
    check_outcomes(config)
    return config


def check_methods(config: dict) -> None:
    """Refuse impossible searches and unknown models; `models` defaults to all of the study's."""
    for name, recipe in config["methods"].items():
        if "learning_rate" not in recipe and "outcomes" not in config:
            raise ForetuneError(f"methods.{name}.learning_rate: is missing")
        check_search(name, recipe)
        models = list(config["models"])
        for model in recipe.setdefault("models", models):
            if model not in models:
                hint = suggest_name(model, models)
                raise ForetuneError(f"methods.{name}.models: {model}: unknown model{hint}")


def trains_on_embeddings(method: str) -> bool:
    """Return whether a method, or the method of a variant, trains on cached embeddings."""
    return get_base_method(method) in CACHED_METHODS


def drop_job_keys(spec: ModelSpec) -> dict[str, Any]:
    """Return a model's entry without the keys that change how its jobs run but no number."""
    return {key: value for key, value in spec.items() if key not in JOB_KEYS}


def check_search(name: str, recipe: Recipe) -> None:
    """Refuse a search that the method or its grid does not allow."""
    search, points = recipe["search"], len(grid_points(recipe))
    where = f"methods.{name}.search"
    if search["kind"] == "random":
        if "trials" not in search:
            raise ForetuneError(f"{where}: a random search needs trials, the number of points")
        if search["trials"] > points:
            raise ForetuneError(
                f"{where}.trials: is {search['trials']}, but the grid has {points} points"
            )
    if search["kind"] == "halving":
        if name in CACHED_METHODS:
            raise ForetuneError(f"{where}: {name} trains all trials together; use grid")
        if recipe["parts"] > 1:
            raise ForetuneError(f"{where}: halving compares all trials in one job; use parts: 1")


def check_forecast(config: dict) -> None:
    """Refuse a forecast of a dataset of the study, or one from a folder without results."""
    forecast = config["forecast"]
    for name in forecast["datasets"]:
        if name in config["datasets"] or name in config["without_images"]:
            raise ForetuneError(
                f"forecast.datasets.{name}: the study has a dataset of this name; use another"
            )
    study = forecast.get("study")
    if study and not Path(study, "analysis/tasks.parquet").is_file():
        raise ForetuneError(
            f"forecast.study: {study}: not a study's results (no analysis/tasks.parquet in it)"
        )


def check_measure_names(config: dict) -> None:
    """Refuse measures that are not registered, and EMMS sources that are no models."""
    measures, registered = config["measures"], list_measure_names()
    for key, choices in [
        ("also", registered),
        ("without", registered),
        ("emms_sources", list(config["models"])),
    ]:
        for name in measures[key]:
            if name not in choices:
                hint = suggest_name(name, choices)
                raise ForetuneError(f"measures.{key}: {name}: unknown{hint}")


def iterate_sources(config: dict) -> Iterator[tuple[str, SourceSpec]]:
    """Yield the dotted key and the entry of every dataset and shifted test."""
    for name, entry in config["datasets"].items():
        yield f"datasets.{name}", entry
        for shift, shifted in entry["shifted"].items():
            yield f"datasets.{name}.shifted.{shift}", shifted
    for name, entry in config["forecast"]["datasets"].items():
        yield f"forecast.datasets.{name}", entry


def check_source(where: str, entry: SourceSpec) -> None:
    """Refuse keys of another kind of source, and a table that leaves out a split."""
    kind = get_source_kind(entry)
    others = {key for keys in SOURCE_KINDS.values() for key in keys} - set(SOURCE_KINDS[kind])
    for key in sorted(others & entry.keys()):
        raise ForetuneError(f"{where}.{key}: not a key of a {kind} source")
    for split, condition in entry.get("splits", {}).items() if kind == "table" else ():
        check_condition(f"{where}.splits.{split}", condition)
    required = {"test"} if ".shifted." in where else {"train", "test"}
    if kind == "table" and (missing := required - entry["splits"].keys()):
        splits = ", ".join(sorted(missing))
        raise ForetuneError(f"{where}.splits: does not say which rows are {splits}")


def get_source_kind(entry: SourceSpec) -> str:
    """Return the kind of an entry's source, such as "folder"."""
    return next(kind for kind in SOURCE_KINDS if kind in entry)


def set_source_root(where: str, entry: SourceSpec, data: str) -> None:
    """Set `root`, the folder of a public dataset's files, unless the entry has it.

    Raises:
        ForetuneError: the source is neither a folder nor the name of a dataset on the hub.
    """
    kind = get_source_kind(entry)
    if "root" not in SOURCE_KINDS[kind] or "root" in entry:
        return
    if "torchvision" in entry:
        entry["root"] = f"{data}/torchvision/{entry['torchvision']}"
        return
    name = entry["webdataset"] if "webdataset" in entry else entry["huggingface"]
    if Path(name).is_dir():
        entry["root"] = name
    elif re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        # A commit's files have a folder of their own, so that they are never those of another one.
        commit = f"@{entry['revision'][:12]}" if "revision" in entry else ""
        entry["root"] = f"{data}/{name}{commit}"
    else:
        raise ForetuneError(
            f"{where}.{kind}: {name}: neither a folder nor owner/name of a dataset on the hub"
        )


def check_paths(config: dict) -> None:
    """Refuse files and folders of the user's that do not exist; the message lists them all."""
    entries: list[tuple[str, Any]] = [
        *((f"models.{name}", entry) for name, entry in config["models"].items()),
        *iterate_sources(config),
        *((f"embeddings.{name}", entry) for name, entry in config["embeddings"].items()),
    ]
    missing = [
        f"{where}.{key}: no such file or folder: {entry[key]}"
        for where, entry in entries
        for key in ("parquet", "folder", "images", "texts", "labels")
        if key in entry and not Path(entry[key]).exists()
    ]
    if missing:
        raise ForetuneError("\n".join(missing))


def fill_defaults(value: Any, schema: dict, root: dict) -> None:
    """Put the schema's defaults into `value`, in place, at every depth.

    Args:
        root: the whole schema, which `$ref` refers to.
    """
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    if not isinstance(value, dict):
        return
    properties = schema.get("properties", {})
    for key, property_schema in properties.items():
        if "default" in property_schema:
            value.setdefault(key, copy.deepcopy(property_schema["default"]))
    for key, item in value.items():
        item_schema = properties.get(key, schema.get("additionalProperties"))
        if isinstance(item_schema, dict):
            fill_defaults(item, item_schema, root)


def list_measure_names() -> list[str]:
    """Return the names of the functions decorated by `@measure` in the room `measures`.

    The modules are read as text, because importing them takes numpy.
    """
    return [
        node.name
        for path in sorted(MEASURES_ROOM.glob("*.py"))
        if "@measure(" in (text := path.read_text())
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "measure"
    ]
