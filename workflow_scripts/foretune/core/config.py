"""The study's config: checked against the schema, defaults filled in, one message an error.

Free of torch, because every dry run imports it.
"""

import ast
import copy
import difflib
import math
import re
from pathlib import Path

import jsonschema
import yaml

from foretune.core.errors import ForetuneError
from foretune.core.grid import grid_points

CONFIG_SCHEMA = Path(__file__).with_name("config.schema.yaml")
MEASURES_ROOM = Path(__file__).parents[1] / "measures"
# Methods that train on cached embeddings, and those of them that have no head for the classes
# of another task.
CACHED_METHODS = ("linear_probe", "clip_adapter")
PROBE_METHODS = ("linear_probe",)
# Of a model's entry, what says how its jobs run and changes no number.
JOB_KEYS = ("gpus", "parameters")
# The kinds of sources of images, and what an entry may say beside where they are.
SOURCE_KINDS = {
    "parquet": (),
    "folder": (),
    "table": ("image", "label", "splits"),
    "torchvision": ("root",),
    "webdataset": ("root", "splits"),
    "huggingface": ("root", "splits", "subset", "image", "label"),
}


# What fixes a dataset's rows: where they come from, and its classes.
SOURCE_KEYS = {*SOURCE_KINDS, "classes"}.union(*SOURCE_KINDS.values())
# JSON Schema counts 1.0 as an integer and NaN as a number; a training loop does not.
VALIDATOR = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: type(value) is int,
            "number": lambda _, value: type(value) in (int, float) and math.isfinite(value),
        }
    ),
)


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML, but a key that stands twice in a mapping is an error: YAML would drop the first."""

    def construct_mapping(self, node, deep=False):
        seen = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                lines = f"lines {seen[key.value]} and {key.start_mark.line + 1}"
                raise yaml.YAMLError(f"{key.value}: stands twice, in {lines}")
            seen[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def read_study(path: Path | str) -> dict:
    """A study's config as it is written. Raises ForetuneError, which names the file."""
    try:
        config = yaml.load(Path(path).read_text(), UniqueKeyLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ForetuneError(f"{path}: cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ForetuneError(f"{path}: not a study: it has no keys")
    return config


def check_config(config: dict) -> dict:
    """A copy of the config with every default in it.

    Raises ForetuneError with one line for each mistake, each naming the key.
    """
    schema = yaml.safe_load(CONFIG_SCHEMA.read_text())
    config = copy.deepcopy(config)
    errors = list(VALIDATOR(schema).iter_errors(config))
    if errors:
        lines = sorted({line for error in errors for line in format_schema_error(error)})
        raise ForetuneError("\n".join(lines))
    fill_defaults(config, schema, schema)
    for name, recipe in config["methods"].items():
        check_search(name, recipe)
        for model in recipe.setdefault("models", list(config["models"])):
            if model not in config["models"]:
                hint = suggest_name(model, list(config["models"]))
                raise ForetuneError(f"methods.{name}.models: {model}: unknown model{hint}")
    entries = {f"models.{name}": entry for name, entry in config["models"].items()}
    for name, entry in config["datasets"].items():
        entries[f"datasets.{name}"] = entry
        entries |= {f"datasets.{name}.shifted.{k}": each for k, each in entry["shifted"].items()}
    forecast = config["forecast"]
    for name, entry in forecast["datasets"].items():
        entries[f"forecast.datasets.{name}"] = entry
        if name in config["datasets"]:
            raise ForetuneError(f"forecast.datasets.{name}: is one of the study's datasets already")
    study = forecast.get("study")
    if study and not Path(study, "analysis/tasks.parquet").is_file():
        raise ForetuneError(f"forecast.study: {study}: no study's results: it has no analysis/")
    measures, known = config["measures"], registered_measures()
    for key, names, choices in [
        ("also", measures["also"], known),
        ("without", measures["without"], known),
        ("emms_sources", measures["emms_sources"], list(config["models"])),
    ]:
        for name in names:
            if name not in choices:
                hint = suggest_name(name, choices)
                raise ForetuneError(f"measures.{key}: {name}: unknown{hint}")
    for where, entry in entries.items():
        if not where.startswith("models."):
            locate_dataset(where, entry, config["data"])
            lacking = {"test"} if ".shifted." in where else {"train", "test"}
            if "table" in entry and (lacking := lacking - entry["splits"].keys()):
                lines = ", ".join(sorted(lacking))
                raise ForetuneError(f"{where}.splits: does not say which rows are {lines}")
    entries |= {f"embeddings.{name}": entry for name, entry in config["embeddings"].items()}
    missing = [
        f"{where}.{key}: no such file or folder: {entry[key]}"
        for where, entry in entries.items()
        for key in ("parquet", "folder", "images", "texts", "labels")
        if key in entry and not Path(entry[key]).exists()
    ]
    if missing:
        raise ForetuneError("\n".join(missing))
    return config


def locate_dataset(where: str, entry: dict, data: str) -> None:
    """Tell a public dataset's entry the folder of its files, `root`, where it does not say it.

    Raises ForetuneError for what is neither a folder nor a hub's dataset, or a key of another kind.
    """
    kind = next(kind for kind in SOURCE_KINDS if kind in entry)
    others = {key for keys in SOURCE_KINDS.values() for key in keys} - set(SOURCE_KINDS[kind])
    for key in sorted(others & entry.keys()):
        raise ForetuneError(f"{where}.{key}: says nothing about {kind}")
    if "root" not in SOURCE_KINDS[kind] or "root" in entry:
        return
    name = entry[kind]
    if kind == "torchvision":
        entry["root"] = f"{data}/torchvision/{name}"
    elif Path(name).is_dir():
        entry["root"] = name
    elif re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        entry["root"] = f"{data}/{name}"
    else:
        raise ForetuneError(f"{where}.{kind}: {name}: no such folder, nor owner/name of the hub's")


def check_search(name: str, recipe: dict) -> None:
    """Refuse a search that cannot be carried out."""
    search, points = recipe["search"], len(grid_points(recipe))
    where = f"methods.{name}.search"
    if search["kind"] == "random":
        if "trials" not in search:
            raise ForetuneError(f"{where}: a random search needs trials: the points to draw")
        if search["trials"] > points:
            raise ForetuneError(f"{where}.trials: {search['trials']} of {points} points")
    if search["kind"] == "halving":
        if name in CACHED_METHODS:
            raise ForetuneError(f"{where}: {name} trains all trials together; use grid")
        if recipe["parts"] > 1:
            raise ForetuneError(f"{where}: halving compares all trials in one job; use parts: 1")
    trials = search["trials"] if search["kind"] == "random" else points
    if recipe["parts"] > trials:
        raise ForetuneError(f"methods.{name}.parts: {recipe['parts']} of {trials} trials")


def format_schema_error(error: jsonschema.ValidationError) -> list[str]:
    """What is wrong, where, and what to do, one line a mistake."""
    path = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = list(error.schema.get("properties", {}))
        return [
            f"{path + '.' if path else ''}{key}: unknown key{suggest_name(key, known)}"
            for key in error.instance
            if key not in known
        ]
    if error.validator == "oneOf" and isinstance(error.instance, dict):
        choices = [" with ".join(choice["required"]) for choice in error.validator_value]
        every = {key for choice in error.validator_value for key in choice["required"]}
        given = [key for key in error.instance if key in every]
        problem = f"has {', '.join(given)}" if given else "has no source"
        return [f"{path}: {problem}; give one of: {', '.join(choices)}"]
    if error.validator == "required" and isinstance(error.instance, dict):
        lacks = [key for key in error.validator_value if key not in error.instance]
        return [f"{path + '.' if path else ''}{key}: is missing" for key in lacks]
    if error.validator == "type":
        hint = ""
        if error.validator_value == "number" and isinstance(error.instance, str):
            hint = " (YAML reads 1e-3 as text: write 1.0e-3)"
        if error.validator_value == "array":
            hint = f": write [{error.instance}]"
        return [f"{path}: {error.instance!r} is not a {error.validator_value}{hint}"]
    if error.validator == "pattern" and path.endswith(".caption"):
        return [f"{path}: {error.instance!r} needs a {{}} where the class name goes"]
    if error.validator == "pattern" and path.endswith(".hub"):
        return [f"{path}: {error.instance!r} is not owner/name of a model on the hub"]
    return [f"{path or 'config'}: {error.message}"]


def suggest_name(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(str(key), known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"


def fill_defaults(value, schema: dict, root: dict) -> None:
    """Put the schema's defaults into `value`, in place, at every depth."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        schema = root["$defs"][name]
    if not isinstance(value, dict):
        return
    for key, sub in schema.get("properties", {}).items():
        if "default" in sub:
            value.setdefault(key, copy.deepcopy(sub["default"]))
    for key, item in value.items():
        sub = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
        if isinstance(sub, dict):
            fill_defaults(item, sub, root)


def registered_measures() -> list[str]:
    """Names of the functions under `@measure`, read as text: importing them takes numpy."""
    return [
        node.name
        for path in sorted(MEASURES_ROOM.glob("*.py"))
        if "@measure(" in (text := path.read_text())
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "measure"
    ]
