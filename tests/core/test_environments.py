"""envs/foretune.yaml, which conda installs, against pyproject.toml, which pip installs."""

import re
import tomllib

import yaml

from checkout import ROOT

CONDA_NAMES = {
    "matplotlib": "matplotlib-base", "open_clip_torch": "open-clip-torch", "torch": "pytorch",
}  # fmt: skip
# They run the workflow. Jobs do not import them.
WORKFLOW = {"rich", "snakemake", "snakemake-executor-plugin-slurm"}


def split(requirement):
    name, bounds = re.fullmatch(r"([\w.-]+?)\s*([<>=!~].*)?", requirement).groups()
    return name, bounds


def test_conda_installs_the_versions_that_pip_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    expected = dict(split(text) for text in project["dependency-groups"]["run"])
    expected = {
        CONDA_NAMES.get(name, name): bounds
        for name, bounds in expected.items()
        if name not in WORKFLOW
    }
    expected["python"] = project["project"]["requires-python"]
    conda = yaml.safe_load((ROOT / "envs/foretune.yaml").read_text())["dependencies"]
    assert dict(map(split, conda)) == expected
