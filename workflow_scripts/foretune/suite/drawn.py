"""Draw the bundled tasks that need no source, in the manner of VTAB's structured tasks.

The drawing functions are those of the corpus, but the pictures look different: the shapes are
smaller and placed anywhere, and the background is shaded and noisy. A model that learned the words
from the corpus must still generalize.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from foretune.suite.bundles import PictureRow, write_picture_bundle
from foretune.suite.corpus import (
    CORPUS_COLOURS,
    SHAPES,
    TEXTURES,
    Colour,
    draw_shape,
    draw_texture,
)
from foretune.suite.leak_check import DIGEST_SIDE

CANVAS_SIDE = 4 * DIGEST_SIDE  # pixels; drawn large and then shrunk, for smooth edges
DRAWN_SPLITS = {"train": 1000, "test": 500}


def jitter_colour(colour: Colour, rng: np.random.Generator, amount: int = 25) -> Colour:
    """Move each channel of a colour by at most `amount`."""
    shifted = np.clip(np.array(colour) + rng.integers(-amount, amount, 3), 0, 255)
    red, green, blue = (int(channel) for channel in shifted)
    return red, green, blue


def draw_colour_pair(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Draw a foreground and a background colour that are easy to tell apart."""
    while True:
        front, back = (
            jitter_colour(CORPUS_COLOURS[str(rng.choice(list(CORPUS_COLOURS)))], rng)
            for _ in range(2)
        )
        if np.abs(np.subtract(front, back)).sum() > 220:
            return front, back


def shade_background(colour: Colour, rng: np.random.Generator) -> Image.Image:
    """Return a canvas of one colour that grows lighter in a random direction."""
    y, x = np.mgrid[:CANVAS_SIDE, :CANVAS_SIDE] / CANVAS_SIDE - 0.5
    light = 1 + rng.uniform(-0.35, 0.35) * x + rng.uniform(-0.35, 0.35) * y
    return Image.fromarray(np.clip(light[..., None] * colour, 0, 255).astype(np.uint8))


def blur_and_shrink(canvas: Image.Image, rng: np.random.Generator, noise: float = 6) -> Image.Image:
    """Blur a canvas a little, shrink it to DIGEST_SIDE, and add gray noise of at most `noise`."""
    small = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2.5))).resize(
        (DIGEST_SIDE, DIGEST_SIDE)
    )
    pixels = np.asarray(small) + rng.normal(0, rng.uniform(0, noise), (DIGEST_SIDE, DIGEST_SIDE, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def place_shape(
    canvas: Image.Image,
    shape: str,
    colour: Colour,
    radii: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    """Draw a shape anywhere inside the canvas, its radius between two fractions of the side."""
    radius = rng.uniform(*radii) * CANVAS_SIDE
    x, y = rng.uniform(radius, CANVAS_SIDE - radius, 2)
    draw_shape(ImageDraw.Draw(canvas), shape, (x, y), radius, rng.uniform(-0.4, 0.4), colour)


def write_drawn_task(
    output: Path,
    draw: Callable[[int, np.random.Generator], Image.Image],
    classes: Sequence[str],
    caption: str,
    seed: int,
) -> None:
    """Draw every class equally often with `draw(label, rng)`, and write the task."""
    rng = np.random.default_rng(seed)
    rows: list[PictureRow] = [
        {"picture": draw(number % len(classes), rng), "label": number % len(classes),
         "split": split}
        for split, count in DRAWN_SPLITS.items()
        for number in range(count)
    ]  # fmt: skip
    write_picture_bundle(output, rows, {
        "classes": list(classes),
        "caption": caption,
        "licence": "CC0 (foretune)",
        "source": "drawn by foretune from a seed",
    }, seed)  # fmt: skip


def bundle_shapes(sources: Path, output: Path, seed: int) -> None:
    """Bundle the task: which of eight shapes is this, anywhere, among specks."""
    classes = ("circle", "square", "triangle", "star", "cross", "ring", "arc", "line")

    def draw(label: int, rng: np.random.Generator) -> Image.Image:
        front, back = draw_colour_pair(rng)
        canvas = shade_background(back, rng)
        for _ in range(6):
            place_shape(canvas, "circle", jitter_colour(back, rng, 60), (0.02, 0.05), rng)
        place_shape(canvas, classes[label], front, (0.24, 0.42), rng)
        return blur_and_shrink(canvas, rng)

    write_drawn_task(output, draw, classes, "a photo of a {}", seed)


def bundle_colours(sources: Path, output: Path, seed: int) -> None:
    """Bundle the task: which colour has the shape, on another colour and in any light."""
    classes = tuple(CORPUS_COLOURS)

    def draw(label: int, rng: np.random.Generator) -> Image.Image:
        other_colours = [name for name in classes if name != classes[label]]
        back = jitter_colour(CORPUS_COLOURS[str(rng.choice(other_colours))], rng)
        canvas = shade_background(back, rng)
        shape = str(rng.choice([s for s in SHAPES if s not in ("line", "rectangle", "arc")]))
        front = jitter_colour(CORPUS_COLOURS[classes[label]], rng, 30)
        place_shape(canvas, shape, front, (0.14, 0.35), rng)
        return blur_and_shrink(canvas, rng)

    write_drawn_task(output, draw, classes, "a photo of a {} shape", seed)


def bundle_counts(sources: Path, output: Path, seed: int) -> None:
    """Bundle the task: how many shapes of one kind, one to eight, without overlap."""
    classes = ("one", "two", "three", "four", "five", "six", "seven", "eight")

    def draw(label: int, rng: np.random.Generator) -> Image.Image:
        front, back = draw_colour_pair(rng)
        canvas, radius = shade_background(back, rng), CANVAS_SIDE * rng.uniform(0.08, 0.11)
        shape = str(rng.choice(("circle", "square", "triangle", "star", "cross")))
        centres: list[np.ndarray] = []
        while len(centres) <= label:
            centre = rng.uniform(radius, CANVAS_SIDE - radius, 2)
            if all(np.hypot(*(centre - other)) > 2.3 * radius for other in centres):
                centres.append(centre)
        for x, y in centres:
            turn = rng.uniform(-0.3, 0.3)
            draw_shape(ImageDraw.Draw(canvas), shape, (x, y), radius, turn, front)
        return blur_and_shrink(canvas, rng, 3)

    write_drawn_task(output, draw, classes, "a photo of {} shapes", seed)


def bundle_textures(sources: Path, output: Path, seed: int) -> None:
    """Bundle the task: which of ten textures in two colours, turned by up to 5 degrees."""

    def draw(label: int, rng: np.random.Generator) -> Image.Image:
        front, back = draw_colour_pair(rng)
        canvas = Image.new("RGBA", (CANVAS_SIDE, CANVAS_SIDE), back)
        draw_texture(canvas, TEXTURES[label], front, rng)
        tilted = canvas.convert("RGB").rotate(rng.uniform(-5, 5), Image.Resampling.BICUBIC)
        edge = CANVAS_SIDE // 16  # rotation leaves the corners empty
        tilted = tilted.crop((edge, edge, CANVAS_SIDE - edge, CANVAS_SIDE - edge))
        tilted = tilted.resize((CANVAS_SIDE, CANVAS_SIDE))
        shade = shade_background((255, 255, 255), rng)
        return blur_and_shrink(Image.blend(tilted, shade, rng.uniform(0, 0.1)), rng)

    write_drawn_task(output, draw, TEXTURES, "a photo of {}", seed)


def bundle_orientation(sources: Path, output: Path, seed: int) -> None:
    """Bundle the task: how far is a white bar turned, in eighths of a half turn (cf. dSprites)."""
    degrees = np.arange(8) * 22.5

    def draw(label: int, rng: np.random.Generator) -> Image.Image:
        canvas = Image.new("RGB", (CANVAS_SIDE, CANVAS_SIDE))
        turn = np.deg2rad(degrees[label] + rng.uniform(-7, 7))
        length = rng.uniform(0.25, 0.42) * CANVAS_SIDE
        width = rng.uniform(0.05, 0.1) * CANVAS_SIDE
        centre = rng.uniform(length, CANVAS_SIDE - length, 2)
        taper = rng.uniform(0.3, 1)
        # Clockwise from upright. The far end may be narrower, like that of a wedge.
        along = np.array([np.sin(turn), -np.cos(turn)]) * length
        across = np.array([np.cos(turn), np.sin(turn)]) * width
        corners = [centre - along - across, centre - along + across,
                   centre + along + across * taper, centre + along - across * taper]  # fmt: skip
        ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in corners], fill="white")
        return blur_and_shrink(canvas, rng)

    classes = [f"{angle:g} degrees" for angle in degrees]
    write_drawn_task(output, draw, classes, "a photo of a bar turned by {}", seed)
