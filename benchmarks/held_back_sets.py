"""Make six image tasks from Debian's packages that have nothing in common with the bundled suite.

A task is a folder with one subfolder per class. The pictures are larger than the mini encoders'
input, and are not turned, cut or coloured. `python benchmarks/held_back.py` makes them.
"""

import gzip
import io
import os
import random
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import resvg_py
from PIL import Image, ImageOps

from common import ROOT
from foretune.suite.corpus import read_font, render_glyph

PACKAGES = Path(__file__).with_name("held_back_packages.txt")
SIDE = 64
MOST_PER_CLASS = 90  # pictures, a random sample if there are more
LARGEST_FILE = 500_000  # bytes; some larger drawings unpack to a gigabyte
CLIPART = {
    "animal": "animals", "building": "buildings", "food": "food", "person": "people",
    "plant": "plants", "tool": "tools", "vehicle": "transportation/vehicles",
    "musical instrument": "recreation/music",
}  # fmt: skip
PEOPLES = {
    "dragon": "drakes", "dwarf": "dwarves", "elf": "elves-wood", "goblin": "goblins",
    "knight": "human-loyalists", "wizard": "human-magi", "mermaid": "merfolk",
    "snake": "nagas", "orc": "orcs", "lizard": "saurians", "skeleton": "undead-skeletal",
    "tree": "woses",
}  # fmt: skip
TERRAINS = {
    "castle": "castle", "cave": "cave", "forest": "forest", "grass": "grass", "hill": "hills",
    "mountain": "mountains", "sand": "sand", "house": "village", "wall": "walls",
    "water": "water", "snow": "frozen",
}  # fmt: skip
CONTEXTS = {
    "action": "actions", "application": "apps", "device": "devices", "file": "mimetypes",
    "place": "places", "status": "status",
}  # fmt: skip
RANKS = ("ace", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "jack",
         "queen", "king")  # fmt: skip
KANA = dict(zip(
    ("a", "i", "u", "e", "o", "ka", "ki", "ku", "ke", "ko", "sa", "shi", "su", "se", "so"),
    "あいうえおかきくけこさしすせそ", strict=True,
))  # fmt: skip
# The entry of each task in a study's config, without its folder.
ENTRIES = {
    "clipart": {"caption": "a picture of a {}", "licence": "public domain",
                "source": "Open Clip Art Library 0.18, Debian's openclipart-png"},
    "peoples": {"caption": "a picture of a {}", "licence": "GPL 2 or later",
                "source": "units of The Battle for Wesnoth, Debian's wesnoth-1.16-data"},
    "terrains": {"caption": "a picture of a {}", "licence": "GPL 2 or later",
                 "source": "terrain of The Battle for Wesnoth, Debian's wesnoth-1.16-data"},
    "cards": {"caption": "a photo of a playing card: {}", "licence": "GPL 3 or later",
              "source": "27 decks of Aisleriot, Debian's gnome-cards-data"},
    "kana": {"caption": 'a photo of the letter "{}"', "licence": "drawn with free fonts",
             "source": "Japanese fonts of Debian's fonts-* packages"},
    "icons": {"caption": "an icon of a {}",
              "licence": "LGPL 3, public domain, CC BY-SA 3.0",
              "source": "Debian's oxygen-, tango- and gnome-icon-theme"},
}  # fmt: skip


def fetch(folder: Path) -> Path:
    """Download and unpack the packages of held_back_packages.txt once; return their usr/share."""
    if not (folder / "usr").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", *PACKAGES.read_text().split()], cwd=folder,
                       check=True)  # fmt: skip
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package.name, "unpacked"], cwd=folder, check=True)
            package.unlink()
        os.rename(folder / "unpacked/usr", folder / "usr")
    return folder / "usr/share"


def list_images(classes: dict[str, str], *tops: Path) -> Iterator[tuple[str, Path]]:
    """Yield (class, PNG file) for all files below the folder of each class, in each of the tops.

    Links, files with equal content and large files are left out.
    """
    for name, folder in classes.items():
        seen = set()
        for top in tops:
            for path in sorted((top / folder).rglob("*.png")):
                if path.is_symlink() or path.stat().st_size > LARGEST_FILE:
                    continue
                if (content := path.read_bytes()) not in seen:
                    seen.add(content)
                    yield name, path


def open_images(files: Iterable[tuple[str, Path]]) -> Iterator[tuple[str, Image.Image]]:
    return ((name, Image.open(path)) for name, path in files)


def clipart(share: Path) -> Iterator[tuple[str, Image.Image]]:
    return open_images(list_images(CLIPART, share / "openclipart/png"))


def peoples(share: Path) -> Iterator[tuple[str, Image.Image]]:
    return open_images(list_images(PEOPLES, share / "games/wesnoth/1.16/data/core/images/units"))


def terrains(share: Path) -> Iterator[tuple[str, Image.Image]]:
    return open_images(list_images(TERRAINS, share / "games/wesnoth/1.16/data/core/images/terrain"))


def icons(share: Path) -> Iterator[tuple[str, Image.Image]]:
    themes = ("oxygen/base/48x48", "Tango/32x32", "gnome/32x32")
    return open_images(list_images(CONTEXTS, *(share / "icons" / theme for theme in themes)))


def cards(share: Path) -> Iterator[tuple[str, Image.Image]]:
    """Cut the decks: each is one drawing with a column per rank, a row per suit, jokers below."""
    for path in sorted((share / "aisleriot/cards").glob("[a-z]*.svgz")):
        if path.stem == "swiss-xvii" or path.is_symlink():  # suits of another kind
            continue
        svg = gzip.decompress(path.read_bytes()).decode()
        png = resvg_py.svg_to_bytes(svg_string=svg, width=13 * SIDE, height=5 * 2 * SIDE)
        deck = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
        width, height = deck.width / 13, deck.height / 5
        for column, rank in enumerate(RANKS):
            for row in range(4):
                left, top = column * width, row * height
                yield rank, deck.crop(tuple(map(round, (left, top, left + width, top + height))))


def kana(share: Path) -> Iterator[tuple[str, Image.Image]]:
    """Draw fifteen hiragana in black with every font; equal pictures of two fonts count once."""
    seen = set()
    for path in sorted((share / "fonts").rglob("*.[ot]tf")):  # codespell:ignore ot
        font, _ = read_font(path)
        for name, code in KANA.items():
            glyph = render_glyph(font, code)
            if glyph and glyph.tobytes() not in seen:
                seen.add(glyph.tobytes())
                black = Image.new("RGBA", glyph.size, "black")
                black.putalpha(glyph.getchannel("A"))
                yield name, black


def make(task: str, share: Path, output: Path) -> Path:
    """Write a task's folder of PNG files on white, at most MOST_PER_CLASS per class.

    The folder appears only when it is complete. Returns it.
    """
    if output.exists():
        return output
    pictures: dict[str, list[Image.Image]] = {}
    for name, picture in globals()[task](share):
        pictures.setdefault(name, []).append(picture)
    partial = output.with_name(f".{output.name}.part")
    for name, available in pictures.items():
        count = min(MOST_PER_CLASS, len(available))
        (partial / name).mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(random.Random(f"{task} {name}").sample(available, count)):
            picture = ImageOps.pad(picture.convert("RGBA"), (SIDE, SIDE), color=(0, 0, 0, 0))
            paper = Image.new("RGBA", picture.size, "white")
            flat = Image.alpha_composite(paper, picture).convert("RGB")
            flat.save(partial / name / f"{number:03}.png")
    os.rename(partial, output)
    return output


def make_all(folder: Path) -> dict[str, dict]:
    """Make all tasks below `folder`, and return their entries in a config."""
    share = fetch(folder / "packages")
    return {
        task: {"folder": os.path.relpath(make(task, share, folder / task), ROOT), **entry}
        for task, entry in ENTRIES.items()
    }
