"""Tasks of artwork in Debian's packages: clip art, games' pictures, cards, chess, icon themes."""

import gzip
import io
import re
from collections.abc import Iterator
from pathlib import Path

import resvg_py
from PIL import Image

from foretune.suite.packages import locate_package
from foretune.suite.task_folders import SIDE, Picture, Task, list_images, open_images

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
# What follows a unit's name in the name of a frame.
FRAME = re.compile(
    r"-?\d+$|-(?:attack|axe|bite|blink|blow|bob|bolas|bow|cast|claws|club|crossbow|dagger|death|"
    r"defen|die|dying|fire|flail|fly|ftouch|hand|heal|idle|jarid|lead|mace|magic|melee|moving|net|"
    r"range|run|shield|spear|staff|stand|sword|throw|trident|walk|water|[ns][ew]?(?![a-z])).*"
)
CONTEXTS = {
    "action": "actions", "application": "apps", "device": "devices", "file": "mimetypes",
    "place": "places", "status": "status",
}  # fmt: skip
RANKS = ("ace", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "jack",
         "queen", "king")  # fmt: skip
PIECES = {"pawn": "p", "knight": "n", "bishop": "b", "rook": "r", "queen": "q", "king": "k"}
# Makruk's and sittuyin's pieces have shapes of their own.
OTHER_GAMES = ("makruk", "sittuyin")
# Endless Sky's categories of outfits.
OUTFITS = {
    "Engines": "an engine", "Power": "a power source", "Systems": "a ship system",
    "Turrets": "a gun turret", "Guns": "a gun", "Ammunition": "a missile or its launcher",
    "Secondary Weapons": "a missile or its launcher", "Missiles": "a missile or its launcher",
}  # fmt: skip
# Its other pictures in the folder of planets are stations and wormholes.
PLANET = re.compile(r"(cloud|desert|dust|fog|forest|gas|ice|lava|ocean|rock|water)\d+$")


def draw_clipart(packages: Path) -> Iterator[Picture]:
    top = locate_package(packages, "debian", "openclipart-png") / "usr/share/openclipart/png"
    return open_images(list_images(CLIPART, top))


def draw_peoples(packages: Path) -> Iterator[Picture]:
    """Show the units of Wesnoth; the frames of one unit are a group."""
    files = list_images(PEOPLES, wesnoth_images(packages) / "units")
    return open_images(files, lambda path: f"{path.parent.name}/{FRAME.split(path.stem)[0]}")


def draw_terrains(packages: Path) -> Iterator[Picture]:
    """Show the terrain of Wesnoth; the numbered variants of one picture are a group."""
    files = list_images(TERRAINS, wesnoth_images(packages) / "terrain")
    return open_images(files, lambda path: f"{path.parent.name}/{re.sub('[0-9]', '', path.stem)}")


def wesnoth_images(packages: Path) -> Path:
    package = locate_package(packages, "debian", "wesnoth-1.16-data")
    return package / "usr/share/games/wesnoth/1.16/data/core/images"


def draw_theme_icons(packages: Path) -> Iterator[Picture]:
    themes = {"oxygen-icon-theme": "oxygen/base/48x48", "tango-icon-theme": "Tango/32x32",
              "gnome-icon-theme": "gnome/32x32"}  # fmt: skip
    tops = (locate_package(packages, "debian", package) / "usr/share/icons" / folder
            for package, folder in themes.items())  # fmt: skip
    return open_images(list_images(CONTEXTS, *tops))


def render_svg(svg: str, width: int, height: int) -> Image.Image:
    """Render an SVG to fit into `width` x `height` pixels; returns RGBA."""
    png = resvg_py.svg_to_bytes(svg_string=svg, width=width, height=height, dpi=96)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def draw_cards(packages: Path) -> Iterator[Picture]:
    """Cut the decks: each is one drawing with a column per rank, a row per suit, jokers below.

    The four cards of a rank in one deck are a group.
    """
    package = locate_package(packages, "debian", "gnome-cards-data")
    for path in sorted((package / "usr/share/aisleriot/cards").glob("[a-z]*.svgz")):
        if path.stem == "swiss-xvii" or path.is_symlink():  # suits of another kind
            continue
        svg = gzip.decompress(path.read_bytes()).decode()
        deck = render_svg(svg, 13 * SIDE, 5 * 2 * SIDE)
        width, height = deck.width / 13, deck.height / 5
        for column, rank in enumerate(RANKS):
            for row in range(4):
                left, top = column * width, row * height
                box = (round(left), round(top), round(left + width), round(top + height))
                yield Picture(rank, deck.crop(box), f"{rank} {path.stem}")


def list_chess_sets(packages: Path) -> Iterator[tuple[str, dict[tuple[str, str], Path]]]:
    """Yield each set's name and the file of each (piece, "white" or "black")."""
    short = {(piece, colour): f"{colour[0]}{code}.svg"
             for piece, code in PIECES.items() for colour in ("white", "black")}  # fmt: skip
    pychess = locate_package(packages, "debian", "pychess") / "usr/share/pychess/pieces"
    tagua = locate_package(packages, "debian", "tagua-data") / "usr/share/tagua/themes/pieces"
    for folder in (*sorted(pychess.iterdir()), *sorted(tagua.iterdir())):
        if folder.name not in OTHER_GAMES and (folder / "wp.svg").exists():
            yield folder.name, {key: folder / file for key, file in short.items()}
    xboard = locate_package(packages, "debian", "xboard")
    xboard /= "usr/share/games/xboard/themes/default"
    yield "xboard", {key: xboard / f"{key[1].title()}{key[0].title()}.svg" for key in short}
    top = locate_package(packages, "debian", "dreamchess-data")
    top /= "usr/share/games/dreamchess/pieces"
    for name in ("figurine", "sketch"):
        yield name, {key: top / name / f"{key[0]}_{key[1][0]}.png" for key in short}


def draw_chess(packages: Path) -> Iterator[Picture]:
    """Draw the pieces of all sets; a piece and its twin of the other colour are a group."""
    for name, files in list_chess_sets(packages):
        for (piece, _), path in files.items():
            if path.suffix == ".svg":
                image = render_svg(path.read_text(), SIDE, SIDE)
            else:
                image = Image.open(path)
            yield Picture(piece, image, f"{piece} {name.removesuffix('_new')}")


def list_outfits(data: Path) -> dict[str, str]:
    """Return the class of each outfit's thumbnail in Endless Sky's data files."""
    kinds: dict[str, str] = {}
    for path in sorted(data.rglob("*.txt")):
        category = ""
        for line in path.read_text().splitlines():
            if not line.startswith("\t"):
                category = ""
            elif match := re.fullmatch(r'\tcategory "(.+)"', line):
                category = match[1]
            elif (match := re.fullmatch(r'\tthumbnail "(.+)"', line)) and category in OUTFITS:
                kinds.setdefault(match[1], OUTFITS[category])
    return kinds


def draw_space(packages: Path) -> Iterator[Picture]:
    """Show Endless Sky's outfits by category, ships and planets; a ship's versions are a group."""
    package = locate_package(packages, "debian", "endless-sky-data")
    top = package / "usr/share/games/endless-sky"
    for thumbnail, kind in sorted(list_outfits(top / "data").items()):
        path = top / f"images/{thumbnail}.png"
        if path.exists() and path.stem != "unknown":
            yield Picture(kind, Image.open(path))
    planets = list_images({"a planet": "planet"}, top / "images")
    yield from open_images((name, path) for name, path in planets if PLANET.match(path.stem))
    yield from open_images(
        list_images({"a space ship": "ship"}, top / "images"),
        lambda path: f"ship {re.split('[-+~=0-9]', path.stem)[0]}",
    )


TASKS = {
    "clipart": Task(
        draw_clipart, (("debian", "openclipart-png"),), "a picture of a {}", "public domain",
        "Open Clip Art Library 0.18, Debian's openclipart-png",
    ),
    "peoples": Task(
        draw_peoples, (("debian", "wesnoth-1.16-data"),), "a picture of a {}", "GPL 2 or later",
        "units of The Battle for Wesnoth, Debian's wesnoth-1.16-data",
    ),
    "terrains": Task(
        draw_terrains, (("debian", "wesnoth-1.16-data"),), "a picture of a {}", "GPL 2 or later",
        "terrain of The Battle for Wesnoth, Debian's wesnoth-1.16-data",
    ),
    "cards": Task(
        draw_cards, (("debian", "gnome-cards-data"),), "a photo of a playing card: {}",
        "GPL 3 or later", "27 decks of Aisleriot, Debian's gnome-cards-data",
    ),
    "icons": Task(
        draw_theme_icons,
        (("debian", "gnome-icon-theme"), ("debian", "oxygen-icon-theme"),
         ("debian", "tango-icon-theme")),
        "an icon of a {}", "LGPL 3, public domain, CC BY-SA 3.0",
        "Debian's oxygen-, tango- and gnome-icon-theme",
    ),
    "chess": Task(
        draw_chess,
        (("debian", "dreamchess-data"), ("debian", "pychess"), ("debian", "tagua-data"),
         ("debian", "xboard")),
        "a picture of a chess piece: {}", "GPL 2 or later, GPL 3 or later",
        "chess sets of Debian's dreamchess-data, pychess, tagua-data and xboard",
    ),
    "space": Task(
        draw_space, (("debian", "endless-sky-data"),), "a picture of {}",
        "CC BY-SA 4.0, CC BY-SA 3.0, CC BY 4.0, public domain",
        "outfits, ships and planets of Endless Sky, Debian's endless-sky-data",
    ),
}  # fmt: skip
