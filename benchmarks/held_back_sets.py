"""Six image tasks that the bundled suite has nothing of, made from Debian's packages as folders.

Each function writes one subfolder a class. What is drawn or rendered is larger than the mini
encoders' input; nothing is turned, cut or coloured. `python benchmarks/held_back.py` runs them.
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
MOST = 90  # pictures a class, taken at random where there are more
LARGE = 500_000  # bytes: some drawings unpack to a gigabyte
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
# How each task enters a study's config, beside its folder.
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
    """Download and unpack the packages of held_back_packages.txt once; their usr/share."""
    if not (folder / "usr").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", *PACKAGES.read_text().split()], cwd=folder,
                       check=True)  # fmt: skip
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package.name, "unpacked"], cwd=folder, check=True)
            package.unlink()
        os.rename(folder / "unpacked/usr", folder / "usr")
    return folder / "usr/share"


def files_of(classes: dict[str, str], *tops: Path) -> Iterator[tuple[str, Path]]:
    """A class and a PNG below its folder in any of the tops; no links, equal or large files."""
    for name, folder in classes.items():
        seen = set()
        for top in tops:
            for path in sorted((top / folder).rglob("*.png")):
                if path.is_symlink() or path.stat().st_size > LARGE:
                    continue
                if (content := path.read_bytes()) not in seen:
                    seen.add(content)
                    yield name, path


def opened(files: Iterable[tuple[str, Path]]) -> Iterator[tuple[str, Image.Image]]:
    return ((name, Image.open(path)) for name, path in files)


def clipart(share: Path) -> Iterator[tuple[str, Image.Image]]:
    return opened(files_of(CLIPART, share / "openclipart/png"))


def peoples(share: Path) -> Iterator[tuple[str, Image.Image]]:
    return opened(files_of(PEOPLES, share / "games/wesnoth/1.16/data/core/images/units"))


def terrains(share: Path) -> Iterator[tuple[str, Image.Image]]:
    return opened(files_of(TERRAINS, share / "games/wesnoth/1.16/data/core/images/terrain"))


def icons(share: Path) -> Iterator[tuple[str, Image.Image]]:
    themes = ("oxygen/base/48x48", "Tango/32x32", "gnome/32x32")
    return opened(files_of(CONTEXTS, *(share / "icons" / theme for theme in themes)))


def cards(share: Path) -> Iterator[tuple[str, Image.Image]]:
    """Each deck is one drawing: thirteen ranks beside each other, a suit a row, jokers below."""
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
    """Fifteen hiragana, black on white, in every font that draws them as no other one does."""
    seen = set()
    for path in sorted((share / "fonts").rglob("*.[ot]tf")):
        font, _ = read_font(path)
        for name, code in KANA.items():
            glyph = render_glyph(font, code)
            if glyph and glyph.tobytes() not in seen:
                seen.add(glyph.tobytes())
                black = Image.new("RGBA", glyph.size, "black")
                black.putalpha(glyph.getchannel("A"))
                yield name, black


def make(task: str, share: Path, output: Path) -> Path:
    """The folder of a task: at most MOST pictures a class, on white, as PNG; whole or absent."""
    if output.exists():
        return output
    pictures: dict[str, list[Image.Image]] = {}
    for name, picture in globals()[task](share):
        pictures.setdefault(name, []).append(picture)
    partial = output.with_name(f".{output.name}.part")
    for name, own in pictures.items():
        own = random.Random(f"{task} {name}").sample(own, min(MOST, len(own)))
        (partial / name).mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(own):
            picture = ImageOps.pad(picture.convert("RGBA"), (SIDE, SIDE), color=(0, 0, 0, 0))
            paper = Image.new("RGBA", picture.size, "white")
            flat = Image.alpha_composite(paper, picture).convert("RGB")
            flat.save(partial / name / f"{number:03}.png")
    os.rename(partial, output)
    return output


def make_all(folder: Path) -> dict[str, dict]:
    """All tasks below `folder`, as entries of a config; the packages are fetched once."""
    share = fetch(folder / "packages")
    return {
        task: {"folder": os.path.relpath(make(task, share, folder / task), ROOT), **entry}
        for task, entry in ENTRIES.items()
    }
