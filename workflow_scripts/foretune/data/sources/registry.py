"""What is known of public datasets besides their files: licence, size, class names, captions."""

from pathlib import Path

import yaml

# What is known of public datasets beside their files: licence, size, class names, captions.
REGISTRY = Path(__file__).with_name("known_sources.yaml")


def get_known_source(kind: str, name: str) -> dict:
    """What the registry says of a dataset; empty where it does not know it."""
    return yaml.safe_load(REGISTRY.read_text())[kind].get(name, {})


def explain_dataset_fetch(spec: dict) -> str:
    """Said where files are missing."""
    said = "on a machine with network: make fetch STUDY=<the study's file>"
    if "torchvision" in spec:
        facts = get_known_source("torchvision", spec["torchvision"])
        return f"{said}; by hand: {facts['by_hand'].format(root=spec['root'])}"
    name = spec.get("webdataset", spec.get("huggingface"))
    return f"{said}; by hand: the files of the hub's dataset {name} go into {spec['root']}"
