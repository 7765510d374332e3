"""Error messages for configs that break the schema: one line per mistake, in plain words."""

import difflib
from typing import Any

import jsonschema

# The schema's types in the words of error messages.
TYPE_NAMES = {
    "object": "a mapping",
    "array": "a list",
    "string": "a string",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
}
# What to say of keys that exist, but not where they were found.
MISPLACED = {
    "features": "only linear_probe has it; other methods need the projected features",
    "shots": "belongs in a method's entry, for all datasets: methods.{method}.shots",
    "seeds": "belongs in a method's entry, for all datasets: methods.{method}.seeds",
}


def format_schema_error(error: jsonschema.ValidationError) -> list[str]:
    """Return one line per mistake: where it is, what is wrong, and what to do."""
    path = ".".join(str(part) for part in error.absolute_path)
    prefix = f"{path}." if path else ""
    value, expected = error.instance, error.validator_value
    if error.validator == "additionalProperties" and isinstance(value, dict):
        known = list(error.schema.get("properties", {}))
        return [
            f"{prefix}{key}: {MISPLACED.get(key) or 'unknown key' + suggest_name(key, known)}"
            for key in value
            if key not in known
        ]
    if error.validator == "oneOf" and isinstance(value, dict):
        choices = [" with ".join(choice["required"]) for choice in expected]
        source_keys = {key for choice in expected for key in choice["required"]}
        present = [key for key in value if key in source_keys]
        begun = [choice["required"] for choice in expected if choice["required"][0] in value]
        if len(begun) == 1 and (missing := [key for key in begun[0] if key not in value]):
            return [f"{prefix}{key}: is missing" for key in missing]
        problem = f"has {', '.join(present)}" if present else "has no source"
        return [f"{path}: {problem}; give one of: {', '.join(choices)}"]
    if error.validator == "anyOf":
        return [f"{path}: {value!r} is not {describe_choices(expected)}"]
    if error.validator == "required" and isinstance(value, dict):
        return [f"{prefix}{key}: is missing" for key in expected if key not in value]
    if error.validator == "dependentRequired" and isinstance(value, dict):
        return [
            f"{prefix}{key}: needs {', '.join(needed)}"
            for key, needed in expected.items()
            if key in value and not set(needed) <= value.keys()
        ]
    if error.validator == "pattern" and path.endswith(".revision"):
        return [f"{path}: {value!r} is not a commit: give all 40 hexadecimal digits"]
    if error.validator == "type":
        return [f"{path}: {value!r} is not {describe_expected_type(value, expected)}"]
    if error.validator == "pattern" and ".caption" in path:
        return [f"{path}: {value!r} needs a {{}} where the class name goes"]
    if error.validator == "pattern" and path.endswith(".hub"):
        return [f"{path}: {value!r} is not owner/name of a model on the hub"]
    if error.validator == "pattern" and "propertyNames" in error.absolute_schema_path:
        if value == "test":
            return [f"{path}: 'test' does not do as a name: it is that of the dataset's own test"]
        return [
            f"{path}: {value!r} does not do as a name: it needs letters or digits of any script, "
            "and may have _ . - after the first, but no text 20 times in a row"
        ]
    return [f"{path or 'config'}: {error.message}"]


def describe_expected_type(value: Any, expected: str | list[str]) -> str:
    """Return the type or types that the schema expects in words, and how to write the value."""
    if expected == "array":
        return f"a list: write [{value}]"
    if expected == "number" and isinstance(value, str):
        return "a number (YAML reads 1e-3 as text: write 1.0e-3)"
    types = [expected] if isinstance(expected, str) else expected
    return " or ".join(TYPE_NAMES.get(name, name) for name in types)


def describe_choices(schemas: list[dict]) -> str:
    """Return the alternatives of an `anyOf` in words: integers from a minimum on, and words."""
    return " or ".join(
        str(schema["const"]) if "const" in schema
        else f"{TYPE_NAMES[schema['type']]} from {schema['minimum']} to {schema['maximum']}"
        for schema in schemas
    )  # fmt: skip


def suggest_name(key: str, known: list[str]) -> str:
    """Return the end of a message about an unknown name: the closest known one, or all."""
    close = difflib.get_close_matches(str(key), known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
