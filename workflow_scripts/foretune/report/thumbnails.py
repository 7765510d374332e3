"""A dataset's description for readers, with a few of its test images as data addresses."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from foretune.data.prepared import decode_image, get_dataset_title

SMALL_SIDE = 8_000  # bytes: an image up to this size stays as it is
THUMBNAIL_SIDE = 128  # pixels of a thumbnail: sharp at the 96 it is shown at on most screens


def describe_dataset_samples(path: Path) -> dict:
    """The manifest at `path` with the dataset's title and samples of its test images."""
    described = json.loads(path.read_text())
    described["title"] = get_dataset_title(described)
    test = described["splits"].get("test")
    described["samples"] = (
        draw_samples(path.parent / test["file"], described["classes"]) if test else []
    )
    return described


def draw_samples(path: Path, classes: list[str], count: int = 10) -> list[dict]:
    """Images spread evenly over the classes; only the row groups that hold one are read."""
    file = pq.ParquetFile(path)
    labels = file.read(columns=["label"])["label"].to_numpy()
    by_class = np.argsort(labels, kind="stable")
    picks = by_class[np.linspace(0, len(labels) - 1, min(count, len(labels))).astype(int)]
    found, start = {}, 0
    for group in range(file.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        inside = [row for row in picks if start <= row < end]
        if inside:
            images = file.read_row_group(group, columns=["image"])["image"]
            for row in inside:
                found[row] = data_uri(images[int(row - start)].as_py(), f"{path}: row {row}")
        start = end
    return [{"uri": found[row], "label": classes[labels[row]]} for row in picks]


def data_uri(encoded: bytes, name: str) -> str:
    """An image as it is, or a thumbnail of it where it is large; `name` is for errors."""
    image = decode_image(encoded, name)
    kind = image.get_format_mimetype()
    if len(encoded) > SMALL_SIDE or kind not in ("image/png", "image/jpeg"):
        image = image.convert("RGB")
        image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        small = io.BytesIO()
        image.save(small, "JPEG", quality=85)
        encoded, kind = small.getvalue(), "image/jpeg"
    return f"data:{kind};base64,{base64.b64encode(encoded).decode()}"
