"""docs/configuration.md and the schema that it is made from."""

import yaml

from checkout import ROOT
from foretune.core.config import CONFIG_SCHEMA
from foretune.core.config_reference import render_reference, resolve

SCHEMA = yaml.safe_load(CONFIG_SCHEMA.read_text())


def iterate_properties(definition, path="config"):
    """Yield (path, definition) of every key at every depth."""
    definition = resolve(SCHEMA, definition)
    for key, below in definition.get("properties", {}).items():
        yield f"{path}.{key}", resolve(SCHEMA, below)
        yield from iterate_properties(below, f"{path}.{key}")
    if isinstance(definition.get("additionalProperties"), dict):
        yield from iterate_properties(definition["additionalProperties"], f"{path}.*")


def test_configuration_page_is_up_to_date():
    page = (ROOT / "docs/configuration.md").read_text()
    assert page == render_reference(SCHEMA), "run `make configuration` and commit the result"


def test_schema_documents_every_key():
    keys = dict(iterate_properties(SCHEMA))
    assert len(keys) > 100
    undocumented = [
        path
        for path, key in keys.items()
        if not key.get("description", "").endswith(".") or "examples" not in key
    ]
    assert undocumented == []


def test_configuration_page_lists_every_key():
    page = render_reference(SCHEMA)
    for path in dict(iterate_properties(SCHEMA)):
        assert f"{path.split('.')[-1]}` |" in page, path
