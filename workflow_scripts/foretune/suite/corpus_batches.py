"""Draw augmented, captioned batches from the pretraining corpus.

No concept occurs twice in a batch, so that no caption is a negative of its own picture. The
augmentation runs on whole batches.
"""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from foretune.suite.corpus import CORPUS_COLOURS, DIGIT_NAMES

# The captions of each kind of picture. {0} is its noun, {1} the digit's name or the letter's case.
CAPTION_TEMPLATES = {
    "pictogram": ("{0}", "a photo of a {0}", "a picture of a {0}", "a drawing of a {0}", "{0} icon",
                  "a photo of {0}", "the {0}"),
    "drawing": ("{0}", "a photo of {0}", "a picture of {0}", "a drawing of {0}"),
    "digit": ("{0}", 'a photo of the number: "{0}"', "the number {0}", "the digit {0}",
              "the number {1}", "a photo of the digit {1}", "a handwritten {0}", 'the number "{0}"',
              "{1}"),
    "letter": ("{0}", 'a photo of the letter "{0}"', "the {1} letter {0}", "the letter {0}",
               'a photo of the {1} letter "{0}"', "a handwritten {0}"),
}  # fmt: skip
# Shares of the part of a batch that the digits leave; each digit occurs once.
SHARES = {"letter": 0.2, "drawing": 0.15, "pictogram": 0.65}


class Corpus:
    """The rendered corpus in memory, and its sampler.

    images: (N, 4, H, W) uint8, RGBA; kind, noun, tintable: (N,), see `corpus.CorpusRow`;
    concepts: for each kind, the row numbers of every concept.
    """

    def __init__(self, path: Path):
        table = pq.read_table(path)
        self.images = torch.from_numpy(
            np.stack([np.asarray(Image.open(io.BytesIO(b))) for b in table["image"].to_pylist()])
        ).permute(0, 3, 1, 2)
        self.kind = np.array(table["kind"].to_pylist())
        self.noun = np.array(table["noun"].to_pylist(), dtype=object)
        self.tintable = table["tintable"].to_numpy(zero_copy_only=False)
        self.concepts = {kind: self._group_by_noun(kind) for kind in CAPTION_TEMPLATES}

    def _group_by_noun(self, kind: str) -> list[np.ndarray]:
        rows = np.flatnonzero(self.kind == kind)
        _, concept = np.unique(self.noun[rows].astype(str), return_inverse=True)
        order = np.argsort(concept, kind="stable")
        return np.split(rows[order], np.flatnonzero(np.diff(concept[order])) + 1)

    def sample(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the row numbers of a batch in which every concept occurs at most once."""
        rows = [rng.choice(concept) for concept in self.concepts["digit"]]
        for kind, share in SHARES.items():
            concepts = self.concepts[kind]
            count = round(share * (size - len(self.concepts["digit"])))
            # A concept that many sets show is drawn more often, but less than in proportion.
            weight = np.sqrt([len(concept) for concept in concepts])
            chosen = rng.choice(len(concepts), count, replace=False, p=weight / weight.sum())
            rows += [rng.choice(concepts[i]) for i in chosen]
        return np.array(rows)


def draw_caption(
    kind: str, noun: str, colours: tuple[str, str] | None, rng: np.random.Generator
) -> str:
    """Draw one of the captions that are true of a picture.

    colours: names of the foreground and background, which a part of the captions mention; None
    if the picture keeps its own colours.
    """
    detail = DIGIT_NAMES[int(noun)] if kind == "digit" else "small" if noun.islower() else "capital"
    text = str(rng.choice(CAPTION_TEMPLATES[kind])).format(noun, detail)
    if colours and rng.random() < 0.3:
        text += f" in {colours[0]}" if rng.random() < 0.5 else f" in {colours[0]} on {colours[1]}"
    return text


def draw_colour_names(tintable: bool, rng: np.random.Generator) -> tuple[str, str]:
    """Draw the colours of a picture's foreground ("": its own) and of the paper behind it."""
    front, back = map(str, rng.choice(list(CORPUS_COLOURS), 2, replace=False))
    if tintable and rng.random() < 0.6:  # ink on paper, or chalk on a board
        front, back = ("white", "black") if rng.random() < 0.65 else ("black", "white")
    elif not tintable and rng.random() < 0.7:
        front, back = "", str(rng.choice(("white", "black", "gray")))
    return front, back


def draw_batch(
    corpus: Corpus, size: int, side: int, rng: np.random.Generator
) -> tuple[Tensor, list[str]]:
    """Draw `size` augmented pictures (B, 3, side, side) in [0, 1] and their captions."""
    rows = corpus.sample(size, rng)
    fronts, backs, captions = [], [], []
    for row in rows:
        colours = draw_colour_names(corpus.tintable[row], rng)
        fronts.append(CORPUS_COLOURS.get(colours[0], (0, 0, 0)))
        backs.append(CORPUS_COLOURS[colours[1]])
        mentioned = colours if corpus.tintable[row] else None
        captions.append(draw_caption(corpus.kind[row], corpus.noun[row], mentioned, rng))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    written = torch.from_numpy(np.isin(corpus.kind[rows], ("digit", "letter")))
    drawn = torch.from_numpy(corpus.kind[rows] == "drawing")
    images = distort(corpus.images[rows].float() / 255, side, written, drawn, generator)
    tinted = torch.from_numpy(corpus.tintable[rows])[:, None, None, None]
    colour, alpha = images[:, :3], images[:, 3:]
    alpha = change_pen(alpha, written, generator)
    colour = torch.where(tinted, torch.tensor(fronts)[:, :, None, None] / 255, colour)
    paper = torch.tensor(backs)[:, :, None, None] / 255
    images = colour * alpha + paper * (1 - alpha)
    gray = torch.rand(len(rows), 1, 1, 1, generator=generator) < 0.15
    names_colour = torch.tensor(
        [any(f" {name}" in f" {text}" for name in CORPUS_COLOURS) for text in captions]
    )
    gray &= ~names_colour[:, None, None, None]  # the caption would be wrong
    images = torch.where(gray, images.mean(1, keepdim=True), images)
    images = images + 0.04 * torch.rand(len(rows), 1, 1, 1, generator=generator) * torch.randn(
        images.shape, generator=generator
    )
    return images.clamp(0, 1), captions


def distort(
    images: Tensor, side: int, written: Tensor, drawn: Tensor, generator: torch.Generator
) -> Tensor:
    """Turn, shear, scale and shift each picture, bend handwriting, and resample to `side`.

    images: (B, 4, H, W) RGBA in [0, 1]; written: (B,) bool, which show digits or letters;
    drawn: (B,) bool, which are drawings. Returns (B, 4, side, side).
    """
    n = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    # Handwriting leans and varies more than pictures do. A drawing is distorted less, because its
    # caption may depend on directions (horizontal or vertical stripes).
    strength = 0.4 + 0.6 * written.float() - 0.3 * drawn.float()
    turn, shear = strength * uniform(-0.3, 0.3), strength * uniform(-0.5, 0.5)
    zoom = torch.where(written, uniform(0.8, 1.5), uniform(0.9, 1.25))
    zoom = torch.where(drawn, uniform(0.95, 1.05), zoom)
    stretch = 1 + strength * uniform(-0.25, 0.25)
    cos, sin = torch.cos(turn) * zoom, torch.sin(turn) * zoom
    shift = 0.18 * strength * zoom
    theta = torch.stack([
        torch.stack([cos * stretch, shear * cos - sin, shift * uniform(-1, 1)], 1),
        torch.stack([sin * stretch, shear * sin + cos, shift * uniform(-1, 1)], 1),
    ], 1)  # fmt: skip
    grid = F.affine_grid(theta, [n, 1, side, side], align_corners=False)
    field = torch.randn(n, 2, 4, 4, generator=generator) * 0.09 * written[:, None, None, None]
    bend = F.interpolate(field, (side, side), mode="bicubic", align_corners=True)
    # The colour of a transparent pixel must not bleed into its neighbours: multiply by alpha,
    # resample, then divide.
    alpha = images[:, 3:]
    resampled = F.grid_sample(
        torch.cat([images[:, :3] * alpha, alpha], 1),
        grid + bend.permute(0, 2, 3, 1),
        align_corners=False,
        padding_mode="zeros",
    )
    divisor = resampled[:, 3:].clamp(min=1e-3)
    return torch.cat([(resampled[:, :3] / divisor).clamp(0, 1), resampled[:, 3:]], 1)


def change_pen(alpha: Tensor, written: Tensor, generator: torch.Generator) -> Tensor:
    """Thicken, thin or coarsen a part of the handwriting: pens differ, and scans are coarse.

    alpha: (B, 1, H, W) in [0, 1]; written: (B,) bool, which show digits or letters.
    """
    side = alpha.shape[-1]
    choice = torch.rand(len(alpha), 1, 1, 1, generator=generator)
    written = written[:, None, None, None]
    thick = F.max_pool2d(alpha, 3, 1, 1)
    thin = -F.max_pool2d(-alpha, 2, 1, 1)[..., :side, :side]
    coarse = F.interpolate(
        F.interpolate(alpha, (11, 11), mode="area"), (side, side), mode="bicubic"
    ).clamp(0, 1)
    alpha = torch.where(written & (choice < 0.3), thick, alpha)
    alpha = torch.where(written & (choice > 0.88), thin, alpha)
    return torch.where(written & (choice > 0.5) & (choice < 0.65), coarse, alpha)
