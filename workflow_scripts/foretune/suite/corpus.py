"""Render the captioned corpus that the mini encoders are pretrained on.

The corpus has four kinds of picture: pictograms with names (Iconify's emoji and icon sets), printed
digits, printed letters (both from fonts), and drawings of shapes, colours, counts and textures.
A row holds a 40 x 40 RGBA picture, its concept, whether it is a bare silhouette that may be given
any colour, and its origin ("set:name"), with which `leak_check` compares the tasks' test images.
OpenMoji, Emoji One v1, Firefox OS's emoji, flags and Debian's fonts are left out on purpose: tasks
are made from them.
"""

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import resvg_py
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from foretune.core.parquet import write_parquet

Colour = tuple[int, int, int]  # red, green and blue, each 0 to 255

CORPUS_SIDE = 40  # pixels
DRAWINGS = 8000  # pictures
CORPUS_COLOURS: dict[str, Colour] = {
    "red": (220, 30, 35), "green": (30, 150, 50), "blue": (35, 70, 210),
    "yellow": (250, 215, 40), "orange": (245, 135, 20), "purple": (130, 50, 165),
    "pink": (250, 140, 185), "brown": (125, 75, 35), "black": (10, 10, 10),
    "white": (250, 250, 250), "gray": (130, 130, 130), "cyan": (40, 200, 215),
}  # fmt: skip
COUNTS = ("one", "two", "three", "four", "five", "six")
DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring", "pentagon",
          "hexagon", "ellipse", "rectangle", "line", "arc")  # fmt: skip
TEXTURES = ("horizontal stripes", "vertical stripes", "diagonal stripes", "a checkerboard",
            "dots", "a grid", "zigzag lines", "noise", "a gradient", "rings")  # fmt: skip

# Left out: emoji with a skin tone are near-copies, and flags have a task of their own.
UNWANTED = re.compile(r"\b(skin tone|medium|dark|light)\b|^flag\b")
# The style of an icon is no part of what it shows: "account-outline" shows an account.
ICON_STYLE = re.compile(r"-(outline|filled|fill|bold|thin|light|duotone|variant|rounded|sharp)\b")


class CorpusRow(TypedDict):
    """A picture of the corpus: encoded as PNG, with its concept (`kind`, `noun`) and origin."""

    image: bytes
    kind: str  # "pictogram", "digit", "letter" or "drawing"
    noun: str
    tintable: bool  # a bare silhouette, which may be given any colour
    origin: str


def make_row(picture: Image.Image, kind: str, noun: str, tintable: bool, origin: str) -> CorpusRow:
    """Encode a picture as PNG and return its row."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return {"image": buffer.getvalue(), "kind": kind, "noun": noun, "tintable": tintable,
            "origin": origin}  # fmt: skip


def read_icons(folder: Path) -> dict:
    """Read an Iconify set.

    Returns a dict with `icons` (name -> SVG body and size), the default `width` and `height`, and
    `palette`, which is true if the icons have colours of their own.
    """
    icons = json.loads((folder / "icons.json").read_text())
    return icons | {"palette": json.loads((folder / "info.json").read_text())["palette"]}


def render_icon(icons: dict, name: str) -> Image.Image | None:
    """Render an icon as an RGBA picture with strokes in white; None if nothing of it shows.

    The longer side of the picture has CORPUS_SIDE pixels.
    """
    icon = icons["icons"][name]
    width, height = (icon.get(key, icons.get(key, 16)) for key in ("width", "height"))
    svg = (
        f'<svg viewBox="0 0 {width} {height}" color="white" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f"{icon['body']}</svg>"
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=CORPUS_SIDE, height=CORPUS_SIDE)
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    return picture if np.asarray(picture.getchannel("A")).max() > 128 else None


def render_pictograms(iconify: Path) -> Iterator[CorpusRow]:
    """Render the icons of all Iconify sets; `iconify` has one folder per set."""
    for folder in sorted(iconify.iterdir()):
        icons = read_icons(folder)
        coloured = icons["palette"]
        for name, icon in tqdm(icons["icons"].items(), desc=folder.name, mininterval=5):
            if folder.name == "ph" and re.search(r"-(bold|thin|light|duotone)$", name):
                continue  # this set has each drawing in six weights
            noun = ICON_STYLE.sub("", name).replace("-", " ").strip()
            if icon.get("hidden") or not noun or (coloured and UNWANTED.search(noun)):
                continue
            picture = render_icon(icons, name)
            if picture and picture.size == (CORPUS_SIDE, CORPUS_SIDE):
                yield make_row(picture, "pictogram", noun, not coloured, f"{folder.name}:{name}")


def read_font(path: Path) -> tuple[ImageFont.FreeTypeFont, str]:
    """Load a font, and return it with the name of its family.

    The name keeps only lower-case letters and digits, so that it is equal for all files of one
    family.
    """
    font = ImageFont.truetype(io.BytesIO(path.read_bytes()), 36)
    return font, re.sub(r"[^a-z0-9]", "", (font.getname()[0] or path.stem).lower())


def render_glyph(font: ImageFont.FreeTypeFont, code: str) -> Image.Image | None:
    """Render a character as a white silhouette; None if the font draws (almost) nothing for it."""
    box = font.getbbox(code)
    width, height = int(box[2] - box[0]), int(box[3] - box[1])
    if min(width, height) < 2:
        return None
    scale = min(1.0, 34 / max(width, height))
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).text((-box[0], -box[1]), code, fill=255, font=font)
    mask = mask.resize((max(1, round(width * scale)), max(1, round(height * scale))))
    alpha = Image.new("L", (CORPUS_SIDE, CORPUS_SIDE))
    alpha.paste(mask, ((CORPUS_SIDE - mask.width) // 2, (CORPUS_SIDE - mask.height) // 2))
    picture = Image.new("RGBA", (CORPUS_SIDE, CORPUS_SIDE), "white")
    picture.putalpha(alpha)
    return picture


def has_small_letters(font: ImageFont.FreeTypeFont) -> bool:
    """Return False for a font that draws small letters as capitals: they would be mislabelled."""
    return font.getmask("g").size[0] != font.getmask("G").size[0]


def render_characters(fonts: Path) -> Iterator[CorpusRow]:
    """Render digits and letters of every font under `fonts` (fontsource packages)."""
    for path in tqdm(sorted(fonts.glob("*/files/*-latin-[47]00-*.woff")), desc="fonts"):
        font, family = read_font(path)
        small = has_small_letters(font)
        for code in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz":
            if (small or not code.islower()) and (picture := render_glyph(font, code)):
                kind = "digit" if code.isdigit() else "letter"
                yield make_row(picture, kind, code, True, f"font {family}:{code}")


def render_drawings(count: int, seed: int) -> Iterator[CorpusRow]:
    """Draw `count` pictures: some coloured shapes each, or a texture in two colours."""
    rng = np.random.default_rng(seed)
    names = list(CORPUS_COLOURS)
    for _ in tqdm(range(count), desc="drawings"):
        front, back = rng.choice(names, 2, replace=False)
        canvas = Image.new("RGBA", (4 * CORPUS_SIDE, 4 * CORPUS_SIDE), CORPUS_COLOURS[back])
        if rng.random() < 0.35:
            texture = str(rng.choice(TEXTURES))
            draw_texture(canvas, texture, CORPUS_COLOURS[front], rng)
            noun = f"{texture} in {front} and {back}" if rng.random() < 0.7 else texture
        else:
            number, shape = int(rng.integers(1, 7)), str(rng.choice(SHAPES))
            draw_shapes(canvas, number, shape, CORPUS_COLOURS[front], rng)
            plural = shape if number == 1 else {"cross": "crosses"}.get(shape, shape + "s")
            noun = f"{COUNTS[number - 1]} {front} {plural}"
            if rng.random() < 0.3:
                noun = f"{COUNTS[number - 1]} {plural}"
            elif rng.random() < 0.3:
                noun += f" on a {back} background"
        picture = canvas.resize((CORPUS_SIDE, CORPUS_SIDE), Image.Resampling.BOX)
        yield make_row(picture, "drawing", noun, False, "drawing")


def draw_shapes(
    canvas: Image.Image, number: int, shape: str, colour: Colour, rng: np.random.Generator
) -> None:
    """Draw `number` equal shapes into the cells of a grid, so that none hides another."""
    pen, side = ImageDraw.Draw(canvas), canvas.width
    cells = 1 if number == 1 else 2 if number <= 4 else 3
    cell = side / cells
    for index in rng.choice(cells * cells, number, replace=False):
        radius = cell * rng.uniform(0.28, 0.46)
        slack = cell / 2 - radius
        x = (index % cells + 0.5) * cell + rng.uniform(-slack, slack)
        y = (index // cells + 0.5) * cell + rng.uniform(-slack, slack)
        draw_shape(pen, shape, (x, y), radius, rng.uniform(-0.3, 0.3), colour)


def draw_shape(
    pen: ImageDraw.ImageDraw,
    shape: str,
    centre: tuple[float, float],
    radius: float,
    turn: float,
    colour: Colour,
) -> None:
    """Draw a shape around `centre` (x, y), turned by `turn` radians; a circle if it is unknown."""
    x, y = centre

    def polygon(angles: np.ndarray, radii: Sequence[float] = (1.0,)) -> None:
        """Draw corners at these angles, clockwise from upright, at these fractions of radius."""
        pen.polygon(
            [
                (x + radius * part * np.sin(angle + turn), y - radius * part * np.cos(angle + turn))
                for angle, part in zip(angles, np.resize(radii, len(angles)), strict=True)
            ],
            fill=colour,
        )

    box = (x - radius, y - radius, x + radius, y + radius)
    corners = {"triangle": 3, "pentagon": 5, "hexagon": 6}
    right_angles = np.pi / 2 * np.arange(4)
    if shape in corners:
        polygon(2 * np.pi * np.arange(corners[shape]) / corners[shape])
    elif shape == "star":
        polygon(np.pi / 5 * np.arange(10), (1, 0.42))
    elif shape == "square":
        polygon(right_angles + np.pi / 4)
    elif shape == "diamond":
        polygon(right_angles, (1, 0.6))
    elif shape in ("rectangle", "line"):
        tilt = 0.45 if shape == "rectangle" else 0.12
        polygon(np.array([-tilt, tilt, np.pi - tilt, np.pi + tilt]))
    elif shape == "cross":
        tilt = 0.25
        polygon(np.repeat(right_angles, 3) + np.tile([-tilt, tilt, np.pi / 4], 4), (1, 1, 0.34))
    elif shape == "ellipse":
        pen.ellipse((x - radius, y - 0.55 * radius, x + radius, y + 0.55 * radius), fill=colour)
    elif shape == "ring":
        pen.ellipse(box, outline=colour, width=max(3, int(radius * 0.3)))
    elif shape == "arc":
        pen.arc(box, 180 + 57 * turn, 360 + 57 * turn, colour, width=max(3, int(radius * 0.3)))
    else:
        pen.ellipse(box, fill=colour)


def draw_texture(
    canvas: Image.Image, texture: str, colour: Colour, rng: np.random.Generator
) -> None:
    """Blend `colour` into the canvas with the texture as the mask."""
    side = canvas.width
    y, x = np.mgrid[:side, :side].astype(float)
    x, y = x + rng.uniform(0, side), y + rng.uniform(0, side)
    period = rng.uniform(0.12, 0.45) * side
    pattern = {
        "horizontal stripes": lambda: (y // (period / 2)) % 2,
        "vertical stripes": lambda: (x // (period / 2)) % 2,
        "diagonal stripes": lambda: ((x + y) // (period / 2)) % 2,
        "a checkerboard": lambda: (x // (period / 2) + y // (period / 2)) % 2,
        "dots": lambda: np.hypot(x % period - period / 2, y % period - period / 2) < period * 0.3,
        "a grid": lambda: np.minimum(x % period, y % period) < period * 0.2,
        "zigzag lines": lambda: ((y + np.abs(x % period - period / 2)) // (period / 3)) % 2,
        "noise": lambda: np.kron(rng.random((side // 4, side // 4)), np.ones((4, 4))),
        "a gradient": lambda: np.linspace(0, 1, side)[:, None] * np.ones(side),
        "rings": lambda: (np.hypot(*np.mgrid[-0.5:0.5:side*1j, -0.5:0.5:side*1j])
                          * side // (period / 3)) % 2,
    }[texture]()  # fmt: skip
    mask = Image.fromarray((np.asarray(pattern, float) * 255).astype(np.uint8))
    canvas.paste(Image.new("RGBA", canvas.size, colour), mask=mask)


def build_corpus(packages: Path, output: Path, seed: int) -> None:
    """Render the whole corpus from `packages` (npm's node_modules folder) into a Parquet file."""
    rows: list[CorpusRow] = [
        *render_pictograms(packages / "@iconify-json"),
        *render_characters(packages / "@fontsource"),
        *render_drawings(DRAWINGS, seed),
    ]
    write_parquet(pa.Table.from_pylist(rows), output, {"seed": seed, "side": CORPUS_SIDE})
