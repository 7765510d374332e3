"""Bundled tasks drawn from a seed, in the manner of VTAB's structured ones.

The drawing functions are the corpus's, but the pictures are not like its drawings: shapes are
smaller and placed anywhere, on a ground that is shaded and noisy, so that a model that has
learned the words must still generalize.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from foretune.suite.bundles import write_pictures
from foretune.suite.corpus import CORPUS_COLOURS, SHAPES, TEXTURES, draw_shape, draw_texture
from foretune.suite.leak_check import DIGEST_SIDE

LARGE = 4 * DIGEST_SIDE  # drawn large and made smaller, for smooth edges
DRAWN_SPLITS = {"train": 1000, "test": 500}
FACTS = {"licence": "CC0 (foretune)", "source": "drawn by foretune from a seed"}


def jitter(colour, rng, amount: int = 25) -> tuple:
    return tuple(
        int(c) for c in np.clip(np.array(colour) + rng.integers(-amount, amount, 3), 0, 255)
    )


def two_colours(rng) -> list[tuple]:
    """A colour to draw with and one for the ground, easy to tell apart."""
    while True:
        front, back = (
            jitter(CORPUS_COLOURS[str(rng.choice(list(CORPUS_COLOURS)))], rng) for _ in range(2)
        )
        if np.abs(np.subtract(front, back)).sum() > 220:
            return [front, back]


def ground(colour, rng) -> Image.Image:
    """A ground that grows lighter to one side."""
    y, x = np.mgrid[:LARGE, :LARGE] / LARGE - 0.5
    light = 1 + rng.uniform(-0.35, 0.35) * x + rng.uniform(-0.35, 0.35) * y
    return Image.fromarray(np.clip(light[..., None] * colour, 0, 255).astype(np.uint8))


def finish(canvas: Image.Image, rng, noise: float = 6) -> Image.Image:
    """Blurred a little, made small, with some noise."""
    small = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2.5))).resize(
        (DIGEST_SIDE, DIGEST_SIDE)
    )
    pixels = np.asarray(small) + rng.normal(0, rng.uniform(0, noise), (DIGEST_SIDE, DIGEST_SIDE, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def place(canvas, shape, colour, rng, low=0.12, high=0.3) -> None:
    """One shape of a radius between the two parts of the side, anywhere inside the picture."""
    radius = rng.uniform(low, high) * LARGE
    x, y = rng.uniform(radius, LARGE - radius, 2)
    draw_shape(ImageDraw.Draw(canvas), shape, x, y, radius, rng.uniform(-0.4, 0.4), colour)


def write_drawn(output, draw, classes, caption, seed) -> None:
    """Draw every class equally often by `draw(label, rng)`, and write the task."""
    rng = np.random.default_rng(seed)
    rows = [
        {"picture": draw(number % len(classes), rng), "label": number % len(classes),
         "split": split}
        for split, count in DRAWN_SPLITS.items()
        for number in range(count)
    ]  # fmt: skip
    write_pictures(output, rows, {"classes": list(classes), "caption": caption, **FACTS}, seed)


def bundle_shapes(sources: Path, output: Path, seed: int) -> None:
    """One of eight shapes, anywhere, among specks."""
    classes = ("circle", "square", "triangle", "star", "cross", "ring", "arc", "line")

    def draw(label, rng):
        front, back = two_colours(rng)
        canvas = ground(back, rng)
        for _ in range(6):
            place(canvas, "circle", jitter(back, rng, 60), rng, 0.02, 0.05)
        place(canvas, classes[label], front, rng, 0.24, 0.42)
        return finish(canvas, rng)

    write_drawn(output, draw, classes, "a photo of a {}", seed)


def bundle_colours(sources: Path, output: Path, seed: int) -> None:
    """The colour of a shape on a ground of another colour, in any light."""
    classes = tuple(CORPUS_COLOURS)

    def draw(label, rng):
        back = jitter(
            CORPUS_COLOURS[str(rng.choice([c for c in classes if c != classes[label]]))], rng
        )
        canvas = ground(back, rng)
        shape = str(rng.choice([s for s in SHAPES if s not in ("line", "rectangle", "arc")]))
        place(canvas, shape, jitter(CORPUS_COLOURS[classes[label]], rng, 30), rng, 0.14, 0.35)
        return finish(canvas, rng)

    write_drawn(output, draw, classes, "a photo of a {} shape", seed)


def bundle_counts(sources: Path, output: Path, seed: int) -> None:
    """How many shapes there are, one to eight, of one kind and none over another."""
    classes = ("one", "two", "three", "four", "five", "six", "seven", "eight")

    def draw(label, rng):
        front, back = two_colours(rng)
        canvas, radius, centres = ground(back, rng), LARGE * rng.uniform(0.08, 0.11), []
        shape = str(rng.choice(("circle", "square", "triangle", "star", "cross")))
        while len(centres) <= label:
            centre = rng.uniform(radius, LARGE - radius, 2)
            if all(np.hypot(*(centre - other)) > 2.3 * radius for other in centres):
                centres.append(centre)
        for x, y in centres:
            turn = rng.uniform(-0.3, 0.3)
            draw_shape(ImageDraw.Draw(canvas), shape, x, y, radius, turn, front)
        return finish(canvas, rng, 3)

    write_drawn(output, draw, classes, "a photo of {} shapes", seed)


def bundle_textures(sources: Path, output: Path, seed: int) -> None:
    """Ten textures in two colours, seen a little askew."""

    def draw(label, rng):
        front, back = two_colours(rng)
        canvas = Image.new("RGBA", (LARGE, LARGE), back)
        draw_texture(canvas, TEXTURES[label], front, rng)
        tilted = canvas.convert("RGB").rotate(rng.uniform(-5, 5), Image.Resampling.BICUBIC)
        edge = LARGE // 16  # rotating leaves empty corners
        tilted = tilted.crop((edge, edge, LARGE - edge, LARGE - edge)).resize((LARGE, LARGE))
        shade = ground((255, 255, 255), rng)
        return finish(Image.blend(tilted, shade, rng.uniform(0, 0.1)), rng)

    write_drawn(output, draw, TEXTURES, "a photo of {}", seed)


def bundle_orientation(sources: Path, output: Path, seed: int) -> None:
    """By how much a white bar on black is turned, in eighths of a half turn (as in dSprites)."""
    degrees = np.arange(8) * 22.5

    def draw(label, rng):
        canvas = Image.new("RGB", (LARGE, LARGE))
        turn = np.deg2rad(degrees[label] + rng.uniform(-7, 7))
        length, width = rng.uniform(0.25, 0.42) * LARGE, rng.uniform(0.05, 0.1) * LARGE
        x, y = rng.uniform(length, LARGE - length, 2)
        taper = rng.uniform(0.3, 1)
        # Clockwise from upright; the far end may be narrower, as a wedge's is.
        along = np.array([np.sin(turn), -np.cos(turn)]) * length
        across = np.array([np.cos(turn), np.sin(turn)]) * width
        centre = np.array([x, y])
        corners = [centre - along - across, centre - along + across,
                   centre + along + across * taper, centre + along - across * taper]  # fmt: skip
        ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in corners], fill="white")
        return finish(canvas, rng)

    classes = [f"{angle:g} degrees" for angle in degrees]
    write_drawn(output, draw, classes, "a photo of a bar turned by {}", seed)
