"""Tasks of photographs: landscapes, objects of the night sky, and animals' outlines."""

import gzip
import pickletools
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from foretune.core.errors import ForetuneError
from foretune.suite.packages import locate_package
from foretune.suite.task_folders import Picture, Task

# Endless Sky's names of its photographs, of kinds with at least ten; those named by their
# photographer have no kind.
LANDSCAPES = {
    "badlands": "badlands", "beach": "a beach", "canyon": "a canyon", "city": "a city",
    "desert": "a desert", "dune": "a desert", "fields": "fields", "mountain": "mountains",
    "sea": "the sea", "sky": "the sky", "snow": "snow", "valley": "a valley",
    "water": "a lake or river",
}  # fmt: skip
# OpenNGC's types, and its Hubble types of galaxies as regular expressions.
SKY_TYPES = {
    "OCl": "open star cluster", "GCl": "globular star cluster", "PN": "planetary nebula",
    "HII": "diffuse nebula", "EmN": "diffuse nebula", "Cl+N": "diffuse nebula",
    "Neb": "diffuse nebula", "SNR": "diffuse nebula", "RfN": "diffuse nebula",
}  # fmt: skip
GALAXY_TYPES = {
    r"E|S?A?B?0|S0": "elliptical or lenticular galaxy", r"SB|SAB": "barred spiral galaxy",
    r"S[a-d]|SA": "spiral galaxy",
}  # fmt: skip
ANIMALS = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
ANIMAL_SIDE = 28  # pixels


def draw_landscapes(packages: Path) -> Iterator[Picture]:
    """Cut the left and the right square out of each photograph; the two are a group."""
    package = locate_package(packages, "debian", "endless-sky-data")
    for path in sorted((package / "usr/share/games/endless-sky/images/land").glob("*.jpg")):
        kind = re.match(r"[a-z]+", path.stem)
        if kind is None or kind[0] not in LANDSCAPES:
            continue
        photograph = Image.open(path).convert("RGB")
        width, height = photograph.size
        for left in (0, width - height):
            square = photograph.crop((left, 0, left + height, height))
            yield Picture(LANDSCAPES[kind[0]], square, path.stem)


def read_sky_types(database: Path) -> dict[str, str]:
    """Return the class of each object of OpenNGC by its name ("NGC0224"), of those with a class."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute("select name, type, hubble, messier from objects").fetchall()
    types = {}
    for name, kind, hubble, messier in rows:
        label = SKY_TYPES.get(kind)
        if kind == "G":
            label = next((label for pattern, label in GALAXY_TYPES.items()
                          if re.match(pattern, hubble or "")), None)  # fmt: skip
        if label:
            types[name] = label
            if messier:
                types[f"M{int(messier)}"] = label
    return types


def draw_deep_sky(packages: Path) -> Iterator[Picture]:
    """Show Stellarium's photographs of deep-sky objects by OpenNGC's type; an object is a group."""
    types = read_sky_types(locate_package(packages, "pypi", "pyongc") / "pyongc/ongc.db")
    package = locate_package(packages, "debian", "stellarium-data")
    catalogues = {"n": "NGC{:04}", "ic": "IC{:04}", "m": "M{}"}
    for path in sorted((package / "usr/share/stellarium/nebulae/default").glob("*.png")):
        if match := re.match(r"(n|ic|m)(\d+)", path.stem):
            name = catalogues[match[1]].format(int(match[2]))
            if name in types:
                yield Picture(types[name], Image.open(path), name)


def read_pickled_bytes(path: Path, size: int) -> bytes:
    """Return the one bytes object of `size` bytes in a gzipped pickle, without executing it."""
    with gzip.open(path) as file:
        for _, content, _ in pickletools.genops(file.read()):
            if isinstance(content, bytes) and len(content) == size:
                return content
    raise ForetuneError(f"{path} has no array of {size} bytes; is it another version?")


def draw_animals(packages: Path) -> Iterator[Picture]:
    """Show Animal-MNIST's outlines of animals in photographs, in black on white."""
    data = locate_package(packages, "pypi", "animal-mnist") / "animal_mnist/data/Animal_MNIST"
    labels = np.frombuffer(read_pickled_bytes(data / "animal_label_version_3.gz", 80_000), np.int64)
    size = len(labels) * ANIMAL_SIDE**2
    pixels = np.frombuffer(read_pickled_bytes(data / "animal_data_version_3.gz", size), np.uint8)
    for label, outline in zip(labels, pixels.reshape(-1, ANIMAL_SIDE, ANIMAL_SIDE), strict=True):
        yield Picture(ANIMALS[label], Image.fromarray(255 - outline))


TASKS = {
    "landscapes": Task(
        draw_landscapes, (("debian", "endless-sky-data"),), "a photo of {}",
        "CC BY-SA 4.0, CC BY-SA 3.0, public domain",
        "photographs of planets' surfaces in Endless Sky, Debian's endless-sky-data",
    ),
    "deep_sky": Task(
        draw_deep_sky, (("debian", "stellarium-data"), ("pypi", "pyongc")),
        "a photo of a {}", "GPL 2 or later; some free for any use with credit",
        "photographs of deep-sky objects in Debian's stellarium-data, types of PyPI's pyongc",
    ),
    "animals": Task(
        draw_animals, (("pypi", "animal-mnist"),), "a silhouette of a {}", "MIT",
        "Animal-MNIST (S. Mohammadi), PyPI's animal-mnist",
    ),
}  # fmt: skip
