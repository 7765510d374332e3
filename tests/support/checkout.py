"""The repository's root, and copies of its working tree in which tests run Snakemake."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLIP_MINI = {"folder": str(ROOT / "resources/mini/clip")}
CODE_FILES = ("Snakefile", "config.yaml")
CODE_FOLDERS = ("rules", "workflow_scripts", "studies", "profiles", "envs", "resources")


def copy_checkout(folder: Path) -> Path:
    """Copy the working tree's code and resources into `folder`, and return it."""
    for name in CODE_FILES:
        shutil.copy(ROOT / name, folder)
    for name in CODE_FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder
