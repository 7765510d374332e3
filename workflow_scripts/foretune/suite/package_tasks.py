"""The image tasks that are made from registry packages, and which of them are held back.

They were fixed, captions included, before any encoder saw one of them. A random draw with a fixed
seed then held six of the new ones back: forecasts are judged by them, and no study, choice or
default rests on them.
"""

import os
import random
from collections.abc import Iterable
from pathlib import Path

from foretune.data.sources.local import read_groups
from foretune.suite import (
    package_artwork,
    package_glyphs,
    package_icons,
    package_photos,
    package_sounds,
)
from foretune.suite.packages import fetch
from foretune.suite.task_folders import Task, make

TASKS: dict[str, Task] = {
    **package_artwork.TASKS,
    **package_glyphs.TASKS,
    **package_icons.TASKS,
    **package_photos.TASKS,
    **package_sounds.TASKS,
}
# Looked at while the first version of the forecast was made, so that they are no test any more.
SEEN = ("cards", "clipart", "icons", "kana", "peoples", "terrains")
HELD_BACK = tuple(sorted(
    random.Random("held-back tasks of issue 14").sample(sorted(set(TASKS) - set(SEEN)), 6)
))  # fmt: skip
STUDY = tuple(sorted(set(TASKS) - set(HELD_BACK)))


def make_tasks(names: Iterable[str], pins: Path, packages: Path, output: Path) -> dict[str, Path]:
    """Make tasks as folders in `output`, and return the folder of each.

    Packages that `packages` lacks are downloaded, in the versions of the file `pins`; a task whose
    folder exists is not made again.
    """
    todo = [name for name in names if not (output / name).exists()]
    fetch(pins, [package for name in todo for package in TASKS[name].packages], packages)
    return {name: make(name, TASKS[name], packages, output / name) for name in names}


def list_entries(folders: dict[str, Path], root: Path) -> dict[str, dict[str, str]]:
    """Return the entry of each task in a study's config; folders are relative to `root`."""
    entries = {}
    for name, folder in folders.items():
        task = TASKS[name]
        entries[name] = {
            "folder": os.path.relpath(folder, root), "caption": task.caption,
            "licence": task.licence, "source": task.source,
        }  # fmt: skip
    return entries


def describe_tasks(folders: dict[str, Path]) -> str:
    """Return a Markdown table of made tasks: classes, images, groups, caption, source, licence."""
    columns = ("task", "classes", "images", "groups", "caption", "source", "licence")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, folder in sorted(folders.items()):
        task = TASKS[name]
        classes = sum(path.is_dir() for path in folder.iterdir())
        images = len(list(folder.glob("*/*.png")))
        groups = len(set((read_groups(folder / "groups.csv") or {}).values())) or "–"
        cells = (f"`{name}`", classes, images, groups, task.caption, task.source, task.licence)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
