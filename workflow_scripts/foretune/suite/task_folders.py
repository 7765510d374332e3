"""Write a task as a folder of pictures with a subfolder per class, and groups of near-copies."""

import csv
import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from foretune.core.errors import ForetuneError

SIDE = 64  # pixels
MOST_PER_CLASS = 90  # pictures, a random sample if there are more; a task may set fewer
LEAST_CONTRAST = 25  # grey levels, of 255
LARGEST_FILE = 500_000  # bytes; some larger drawings unpack to a gigabyte


class Picture(NamedTuple):
    """A picture of a class. Near-copies share a group; "" is a picture without any."""

    name: str  # of the class
    image: Image.Image
    group: str = ""


@dataclass(frozen=True)
class Task:
    """An image task: the function that draws it from unpacked packages, and its config entry.

    `draw` gets the folder of `packages.fetch`; `packages` has (registry, name) of all that it
    reads.
    """

    draw: Callable[[Path], Iterator[Picture]]
    packages: tuple[tuple[str, str], ...]
    caption: str
    licence: str
    source: str
    most_per_class: int = MOST_PER_CLASS


def list_images(
    classes: dict[str, str], *tops: Path, pattern: str = "*.png"
) -> Iterator[tuple[str, Path]]:
    """Yield (class, file) for all files below the folder of each class, in each of the tops.

    Links, files with equal content and large files are left out.
    """
    for name, folder in classes.items():
        seen = set()
        for top in tops:
            for path in sorted((top / folder).rglob(pattern)):
                if path.is_symlink() or path.stat().st_size > LARGEST_FILE:
                    continue
                if (content := path.read_bytes()) not in seen:
                    seen.add(content)
                    yield name, path


def open_images(
    files: Iterable[tuple[str, Path]], group: Callable[[Path], str] | None = None
) -> Iterator[Picture]:
    """Open the files of each class; `group` names the group of near-copies that a file is in."""
    for name, path in files:
        yield Picture(name, Image.open(path), group(path) if group else "")


def flatten_on_white(image: Image.Image) -> Image.Image:
    """Pad a picture to a square of SIDE pixels on white; returns RGB."""
    padded = ImageOps.pad(image.convert("RGBA"), (SIDE, SIDE), color=(0, 0, 0, 0))
    return Image.alpha_composite(Image.new("RGBA", padded.size, "white"), padded).convert("RGB")


def is_blank(flat: Image.Image) -> bool:
    """Whether an RGB picture has (almost) one brightness only, so that nothing shows."""
    return int(np.ptp(np.asarray(flat.convert("L"), int))) < LEAST_CONTRAST


def make(name: str, task: Task, packages: Path, output: Path) -> Path:
    """Write a task's folder of PNG files on white, at most `most_per_class` per class.

    If pictures have groups, `groups.csv` names each file's, with the columns file (relative to the
    folder) and group. The folder appears only when it is complete. Returns it.
    """
    if output.exists():
        return output
    available: dict[str, list[Picture]] = {}
    for picture in task.draw(packages):
        available.setdefault(picture.name, []).append(picture)
    if len(available) < 2:
        raise ForetuneError(f"task {name}: {packages} has no pictures of it; delete the folder")
    partial = output.with_name(f".{output.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    groups, left_out = [], 0
    for label, pictures in available.items():
        (partial / label).mkdir(parents=True)
        seen: set[bytes] = set()
        count = min(task.most_per_class, len(pictures))
        sample = random.Random(f"{name} {label}").sample(pictures, count)
        for number, picture in enumerate(sample):
            flat = flatten_on_white(picture.image)
            if is_blank(flat) or flat.tobytes() in seen:
                left_out += 1
                continue
            seen.add(flat.tobytes())
            file = f"{label}/{number:03}.png"
            flat.save(partial / file)
            groups.append((file, picture.group or file))
    if any(file != group for file, group in groups):
        with open(partial / "groups.csv", "w", newline="") as lines:
            csv.writer(lines).writerows([("file", "group"), *sorted(groups)])
    if left_out:
        print(f"{name}: left out {left_out} pictures that show nothing or repeat one of the class")
    os.rename(partial, output)
    return output
