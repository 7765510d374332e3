"""Facts about public datasets and models: licences, sizes, class names, captions, addresses."""

from pathlib import Path

import yaml

from foretune.core.entries import SourceSpec

REGISTRY = Path(__file__).with_name("known_sources.yaml")


def get_known_source(kind: str, name: str) -> dict:
    """Return the registry's facts about a dataset or model; empty if it is not listed.

    Args:
        kind: "torchvision", "hub" or "models", the top-level keys of known_sources.yaml.
    """
    return yaml.safe_load(REGISTRY.read_text())[kind].get(name, {})


def explain_dataset_fetch(spec: SourceSpec) -> str:
    """Return the part of an error message that says how to get a public dataset's files."""
    by_make = "on a machine with network: make fetch STUDY=<the study's file>"
    if "torchvision" in spec:
        facts = get_known_source("torchvision", spec["torchvision"])
        return f"{by_make}; by hand: {facts['by_hand'].format(root=spec['root'])}"
    name = spec["webdataset"] if "webdataset" in spec else spec["huggingface"]
    return f"{by_make}; by hand: put the files of the hub's dataset {name} into {spec['root']}"
