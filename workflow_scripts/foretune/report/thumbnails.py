"""Describe a dataset for the report, with a few of its test images as data URIs."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from foretune.core.files import read_json
from foretune.core.parquet import explain_parquet_errors, read_table
from foretune.data.notes import read_notes
from foretune.data.prepared import Manifest, decode_image, get_dataset_title

MAX_UNCHANGED_BYTES = 8_000  # larger images are replaced by thumbnails
THUMBNAIL_PIXELS = 128  # longest side; the page shows images at 96 CSS pixels


class Sample(TypedDict):
    """One test image: its data URI and the name of its class."""

    uri: str
    label: str


class DatasetDescription(Manifest):
    """The manifest of a dataset or shifted test, its title, samples of its test, and notes."""

    title: str
    samples: list[Sample]
    notes: list[str]


def describe_dataset(path: Path) -> DatasetDescription:
    """Return the description of the dataset whose manifest is the file `path`."""
    manifest: Manifest = read_json(path, Manifest)
    test = manifest["splits"].get("test")
    samples = draw_samples(path.parent / test["file"], manifest["classes"]) if test else []
    title, notes = get_dataset_title(manifest), read_notes(path.parent)
    return {**manifest, "title": title, "samples": samples, "notes": notes}


def draw_samples(path: Path, classes: list[str], count: int = 10) -> list[Sample]:
    """Return up to `count` images of the split `path`, spread evenly over the classes."""
    labels = read_table(path, ["label"])["label"].to_numpy()
    by_class = np.argsort(labels, kind="stable")
    chosen = by_class[np.linspace(0, len(labels) - 1, min(count, len(labels))).astype(int)]
    uris = read_data_uris(path, chosen)
    return [{"uri": uris[row], "label": classes[labels[row]]} for row in chosen]


def read_data_uris(path: Path, chosen: Iterable[int]) -> dict[int, str]:
    """Return the images in the chosen rows of the split `path` as data URIs, by row.

    Only those row groups are read that hold a chosen image. Raises ForetuneError, naming the file
    and the row, if an image cannot be decoded, or if the file is damaged.
    """
    wanted, start = sorted({int(row) for row in chosen}), 0
    uris: dict[int, str] = {}
    with explain_parquet_errors(path):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            rows = [row for row in wanted if start <= row < end]
            if rows:
                images = file.read_row_group(group, columns=["image"])["image"]
                for row in rows:
                    uris[row] = make_data_uri(images[row - start].as_py(), f"{path}: row {row}")
            start = end
    return uris


def make_data_uri(encoded: bytes, name: str) -> str:
    """Return an encoded image as a data URI.

    A small PNG or JPEG file is embedded unchanged, any other image as a JPEG thumbnail. An error
    about the image begins with `name`.
    """
    image = decode_image(encoded, name)
    # The decoded image may be a turned copy, which has no format.
    mime_type = Image.MIME.get(Image.open(io.BytesIO(encoded)).format or "")
    if len(encoded) > MAX_UNCHANGED_BYTES or mime_type not in ("image/png", "image/jpeg"):
        thumbnail = image.convert("RGB")
        thumbnail.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        buffer = io.BytesIO()
        thumbnail.save(buffer, "JPEG", quality=85)
        encoded, mime_type = buffer.getvalue(), "image/jpeg"
    return f"data:{mime_type};base64,{base64.b64encode(encoded).decode()}"
