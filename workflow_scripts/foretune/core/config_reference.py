"""The reference of all configuration keys, made from the schema (docs/configuration.md)."""

import json
import re
from collections.abc import Iterator

INTRODUCTION = """# Configuration

<!-- Made by `make configuration` from workflow_scripts/foretune/core/config.schema.yaml. -->

A study is one YAML file. `config.yaml` is the default study; `make demo STUDY=path/to/study.yaml`
runs another one in its place. A key that is not listed here is an error, which names the key
before the first job. YAML reads `1e-3` as text: write `1.0e-3`.

In a key's path, `{name}` stands for a name of your choice. A dash as default means that the key
has no value unless you give one.
"""
# Sections: heading, path in the config, keys of the schema's tree that lead to the entry.
SECTIONS = (
    ("The study", "", ()),
    ("Models", "models.{name}.", ("properties", "models", "additionalProperties")),
    ("Datasets", "datasets.{name}.", ("properties", "datasets", "additionalProperties")),
    ("Methods", "methods.", ("properties", "methods")),
    ("Every method", "methods.{method}.", ("$defs", "recipe")),
    ("Methods that train the towers", "methods.{method}.", ("$defs", "tuned")),
    ("LoRA", "methods.lora.", ("properties", "methods", "properties", "lora")),
    ("CLIP-LoRA", "methods.clip_lora.", ("properties", "methods", "properties", "clip_lora")),
    ("FLYP", "methods.flyp.", ("properties", "methods", "properties", "flyp")),
    ("LP-FT", "methods.lp_ft.", ("properties", "methods", "properties", "lp_ft")),
    ("CLIP-Adapter", "methods.clip_adapter.",
     ("properties", "methods", "properties", "clip_adapter")),
    ("Linear probe", "methods.linear_probe.",
     ("properties", "methods", "properties", "linear_probe")),
    ("Probes from captions", "methods.text_probe.",
     ("properties", "methods", "properties", "text_probe")),
    ("LP++", "methods.lp_plus_plus.",
     ("properties", "methods", "properties", "lp_plus_plus")),
    ("Measures", "measures.", ("properties", "measures")),
    ("Forecasts", "forecast.", ("properties", "forecast")),
    ("Embeddings from elsewhere", "embeddings.{name}.",
     ("properties", "embeddings", "additionalProperties")),
)  # fmt: skip
NOTES = {
    "Methods that train the towers": "`full`, `flyp`, `lp_ft`, `bitfit`, `attention`, `lora` and "
    "`clip_lora` also take these.",
    "LoRA": "`lora` and `clip_lora` also take these.",
    "CLIP-LoRA": "`clip_lora` has other defaults of these.",
    "FLYP": "`flyp` has other bounds of this.",
    "LP-FT": "`lp_ft` also takes these, or fewer choices.",
    "CLIP-Adapter": "`clip_adapter` also takes these.",
    "Linear probe": "`linear_probe` also takes this.",
    "Probes from captions": "`text_probe` takes this as follows.",
    "LP++": "`lp_plus_plus` also takes these, or has another default.",
    "Datasets": "An entry below `shifted` takes the same keys, except `caption`, `classes`, "
    "`shards` and `shifted`.",
    "Forecasts": "An entry below `datasets` takes the keys of a dataset, except `shifted`.",
}


def render_reference(schema: dict) -> str:
    """Return docs/configuration.md for the schema: one table row per key.

    Each key has its type, default, an example and a description. A key is listed in the first
    section that has it, and again if it differs for a method.
    """
    lines, listed = [INTRODUCTION], dict[str, dict]()
    for heading, prefix, path in SECTIONS:
        entry: dict = schema
        for step in path:
            entry = entry[step]
        rows = list(iterate_keys(schema, entry, prefix, listed))
        lines += [f"## {heading}", ""]
        lines += [NOTES[heading], ""] if heading in NOTES else []
        lines += ["| key | type | default | example | meaning |", "|" + 5 * "---|", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def iterate_keys(schema: dict, entry: dict, prefix: str, listed: dict[str, dict]) -> Iterator[str]:
    """Yield the table rows of an entry's keys and of the keys of its nested objects.

    `listed` has the definitions of the rows so far, by place; it grows.
    """
    for key, reference in entry.get("properties", {}).items():
        # A key that several methods take is listed once, in the first section that has it.
        place = re.sub(r"^methods\.[^.]+\.", "methods.*.", f"{prefix}{key}")
        definition = resolve(schema, reference)
        if listed.get(place) == definition:
            continue
        listed.setdefault(place, definition)
        cells = (
            f"`{prefix}{key}`",
            format_type(schema, definition),
            f"`{to_yaml(definition['default'])}`" if "default" in definition else "–",
            f"`{to_yaml(definition['examples'][0])}`",
            definition["description"],
        )
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        # The sections list what lies below the top level, a method or a name of the user's choice.
        if "properties" in definition and prefix not in ("", "methods."):
            yield from iterate_keys(schema, definition, f"{prefix}{key}.", listed)


def resolve(schema: dict, definition: dict) -> dict:
    """Return a definition with its `$ref` replaced; what stands next to the `$ref` wins."""
    if "$ref" not in definition:
        return definition
    target = schema["$defs"][definition["$ref"].removeprefix("#/$defs/")]
    return {**target, **{key: value for key, value in definition.items() if key != "$ref"}}


TYPE_NAMES = {
    "string": "text", "object": "mapping", "boolean": "true or false", "array": "list",
}  # fmt: skip


def format_type(schema: dict, definition: dict) -> str:
    """Return a definition's type in words, with its bounds or choices."""
    if "enum" in definition:
        return "one of " + ", ".join(str(choice) for choice in definition["enum"])
    kind = definition.get("type", "object")
    if kind == "array":
        return f"list of: {format_type(schema, resolve(schema, definition['items']))}"
    if isinstance(kind, list):
        return " or ".join(TYPE_NAMES[name] for name in kind)
    name = TYPE_NAMES.get(kind, kind)
    bounds = [
        f"{sign} {format(limit, 'g') if isinstance(limit, float) else limit}"
        for bound, sign in (
            ("minimum", "≥"), ("exclusiveMinimum", ">"),
            ("maximum", "≤"), ("exclusiveMaximum", "<"),
        )
        if (limit := definition.get(bound)) is not None
    ]  # fmt: skip
    return ", ".join([name, *bounds])


def to_yaml(value) -> str:
    """Return a value as one line of YAML in flow style."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {to_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(to_yaml(item) for item in value) + "]"
    if isinstance(value, float) and (value < 0.01 or value >= 1e5):
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent):+d}"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if set(value) & set('{}:"<>=') else value
    return json.dumps(value)
