"""The captioned corpus that the mini encoders are pretrained on.

Four kinds of picture, none of which occurs in a bundled dataset: pictograms with names
(Iconify's emoji and icon sets), printed digits and letters (fonts), and drawings of
shapes, colours, counts and textures. A row is a 40 x 40 RGBA picture, its concept and
whether it is a bare silhouette that may be given any colour, and where it comes from
(set:name), so that `leaks` can tell it from the tasks' tests. OpenMoji, Emoji One v1,
Firefox OS's emoji, flags and Debian's fonts are left out on purpose: tasks are made from them.
"""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import resvg_py
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from foretune.core.parquet import write_parquet

CORPUS_SIDE = 40
DRAWINGS = 8000
CORPUS_COLOURS = {
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

# Emoji have a skin tone, flags are fine-grained: both are left to tasks of their own.
UNWANTED = re.compile(r"\b(skin tone|medium|dark|light)\b|^flag\b")
# Styles of one icon, not part of what it shows ("account-outline" shows an account).
ICON_STYLE = re.compile(r"-(outline|filled|fill|bold|thin|light|duotone|variant|rounded|sharp)\b")


def read_icons(folder: Path) -> dict:
    """An Iconify set: `icons` (name -> svg body and size), the sizes' defaults, `palette`."""
    icons = json.loads((folder / "icons.json").read_text())
    return icons | {"palette": json.loads((folder / "info.json").read_text())["palette"]}


def render_icon(icons: dict, name: str) -> Image.Image | None:
    """An icon as an RGBA picture SIDE high or wide (strokes in white), None where nothing shows."""
    icon = icons["icons"][name]
    width, height = (icon.get(k, icons.get(k, 16)) for k in ("width", "height"))
    svg = (
        f'<svg viewBox="0 0 {width} {height}" color="white" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f"{icon['body']}</svg>"
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=CORPUS_SIDE, height=CORPUS_SIDE)
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    return picture if picture.getextrema()[3][1] > 128 else None


def render_pictograms(iconify: Path) -> Iterator[dict]:
    """Named pictures of the Iconify sets under `iconify` (a folder with one set each)."""
    for folder in sorted(iconify.iterdir()):
        icons = read_icons(folder)
        coloured = icons["palette"]
        for name, icon in tqdm(icons["icons"].items(), desc=folder.name, mininterval=5):
            if folder.name == "ph" and re.search(r"-(bold|thin|light|duotone)$", name):
                continue  # one drawing in six weights
            noun = ICON_STYLE.sub("", name).replace("-", " ").strip()
            if icon.get("hidden") or not noun or (coloured and UNWANTED.search(noun)):
                continue
            picture = render_icon(icons, name)
            if picture and picture.size == (CORPUS_SIDE, CORPUS_SIDE):
                yield make_row(picture, "pictogram", noun, not coloured, f"{folder.name}:{name}")


def read_font(path: Path) -> tuple[ImageFont.FreeTypeFont, str]:
    """A font to draw with, and its family's name, plain, so that two files of one can be told."""
    font = ImageFont.truetype(io.BytesIO(path.read_bytes()), 36)
    return font, re.sub(r"[^a-z0-9]", "", (font.getname()[0] or path.stem).lower())


def render_glyph(font: ImageFont.FreeTypeFont, code: str) -> Image.Image | None:
    """A character as a SIDE x SIDE silhouette, None where the font has no such shape."""
    box = font.getbbox(code)
    width, height = box[2] - box[0], box[3] - box[1]
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
    """Fonts of capitals only draw g as G: their small letters would be mislabelled."""
    return font.getmask("g").size[0] != font.getmask("G").size[0]


def render_characters(fonts: Path) -> Iterator[dict]:
    """Digits and letters of every font under `fonts` (fontsource packages), as silhouettes."""
    for path in tqdm(sorted(fonts.glob("*/files/*-latin-[47]00-*.woff")), desc="fonts"):
        font, family = read_font(path)
        small = has_small_letters(font)
        for code in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz":
            if (small or not code.islower()) and (picture := render_glyph(font, code)):
                kind = "digit" if code.isdigit() else "letter"
                yield make_row(picture, kind, code, True, f"font {family}:{code}")


def render_drawings(count: int, seed: int) -> Iterator[dict]:
    """`count` drawn pictures: counted, coloured shapes, and two-coloured textures."""
    rng = np.random.default_rng(seed)
    names = list(CORPUS_COLOURS)
    for _ in tqdm(range(count), desc="drawings"):
        front, back = rng.choice(names, 2, replace=False)
        canvas = Image.new("RGBA", (4 * CORPUS_SIDE, 4 * CORPUS_SIDE), CORPUS_COLOURS[back])
        if rng.random() < 0.35:
            what = str(rng.choice(TEXTURES))
            draw_texture(canvas, what, CORPUS_COLOURS[front], rng)
            noun = f"{what} in {front} and {back}" if rng.random() < 0.7 else what
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


def draw_shapes(canvas: Image.Image, number: int, shape: str, colour, rng) -> None:
    """Draw `number` shapes into the cells of a grid, so that none hides another."""
    pen, side = ImageDraw.Draw(canvas), canvas.width
    cells = 1 if number == 1 else 2 if number <= 4 else 3
    cell = side / cells
    for index in rng.choice(cells * cells, number, replace=False):
        radius = cell * rng.uniform(0.28, 0.46)
        slack = cell / 2 - radius
        x = (index % cells + 0.5) * cell + rng.uniform(-slack, slack)
        y = (index // cells + 0.5) * cell + rng.uniform(-slack, slack)
        draw_shape(pen, shape, x, y, radius, rng.uniform(-0.3, 0.3), colour)


def draw_shape(pen: ImageDraw.ImageDraw, shape: str, x, y, radius, turn, colour) -> None:
    """Draw one shape of the given radius about (x, y), turned by `turn` radians."""

    def polygon(angles, radii=(1.0,)):
        pen.polygon(
            [
                (x + radius * r * np.sin(a + turn), y - radius * r * np.cos(a + turn))
                for a, r in zip(angles, np.resize(radii, len(angles)), strict=True)
            ],
            fill=colour,
        )

    box = (x - radius, y - radius, x + radius, y + radius)
    corners = {"triangle": 3, "pentagon": 5, "hexagon": 6}
    right = np.pi / 2 * np.arange(4)
    if shape in corners:
        polygon(2 * np.pi * np.arange(corners[shape]) / corners[shape])
    elif shape == "star":
        polygon(np.pi / 5 * np.arange(10), (1, 0.42))
    elif shape == "square":
        polygon(right + np.pi / 4)
    elif shape == "diamond":
        polygon(right, (1, 0.6))
    elif shape in ("rectangle", "line"):
        tilt = 0.45 if shape == "rectangle" else 0.12
        polygon(np.array([-tilt, tilt, np.pi - tilt, np.pi + tilt]))
    elif shape == "cross":
        tilt = 0.25
        polygon(np.repeat(right, 3) + np.tile([-tilt, tilt, np.pi / 4], 4), (1, 1, 0.34))
    elif shape == "ellipse":
        pen.ellipse((x - radius, y - 0.55 * radius, x + radius, y + 0.55 * radius), fill=colour)
    elif shape == "ring":
        pen.ellipse(box, outline=colour, width=max(3, int(radius * 0.3)))
    elif shape == "arc":
        pen.arc(box, 180 + 57 * turn, 360 + 57 * turn, colour, width=max(3, int(radius * 0.3)))
    else:
        pen.ellipse(box, fill=colour)


def draw_texture(canvas: Image.Image, what: str, colour, rng) -> None:
    """Blend `colour` into the canvas by the pattern's mask."""
    side = canvas.width
    y, x = np.mgrid[:side, :side].astype(float)
    x, y = x + rng.uniform(0, side), y + rng.uniform(0, side)
    period = rng.uniform(0.12, 0.45) * side
    wave = {
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
    }[what]()  # fmt: skip
    mask = Image.fromarray((np.asarray(wave, float) * 255).astype(np.uint8))
    canvas.paste(Image.new("RGBA", canvas.size, colour), mask=mask)


def make_row(picture: Image.Image, kind: str, noun: str, tintable: bool, origin: str) -> dict:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return {"image": buffer.getvalue(), "kind": kind, "noun": noun, "tintable": tintable,
            "origin": origin}  # fmt: skip


def build_corpus(packages: Path, output: Path, seed: int) -> None:
    """Render the corpus from npm's `packages` (a node_modules folder) into one Parquet file."""
    rows = [
        *render_pictograms(packages / "@iconify-json"),
        *render_characters(packages / "@fontsource"),
        *render_drawings(DRAWINGS, seed),
    ]
    write_parquet(pa.Table.from_pylist(rows), output, {"seed": seed, "side": CORPUS_SIDE})
