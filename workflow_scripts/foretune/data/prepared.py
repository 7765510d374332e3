"""Reading prepared datasets: the manifest, the rows of a split, and decoding an image."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NotRequired, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from foretune.core.errors import ForetuneError
from foretune.core.parquet import read_metadata

SPLITS = ("train", "val", "test")
SPLIT_SCHEMA = pa.schema([("id", pa.string()), ("image", pa.binary()), ("label", pa.int32())])
READ_BATCH = 64  # rows that are checked, or read, at a time: pictures of a megabyte are common


class SplitEntry(TypedDict):
    """A split's file, relative to the manifest's folder, and how many rows it has."""

    file: str
    rows: int


class Manifest(TypedDict):
    """What `dataset.json` says of a prepared dataset or of one of its shifted tests."""

    name: str
    split: str  # "test", or the shifted test's name
    classes: list[str]
    source_classes: list[str]  # the classes as the source names them
    caption: str
    licence: str
    source: str
    parent: NotRequired[str]  # digest of the dataset that a shifted test belongs to
    digest: str  # of the rows and classes
    test_digest: str  # of the images that the test is drawn from, in any order
    splits: dict[str, SplitEntry]


def read_manifest(folder: Path | str) -> Manifest:
    return json.loads((Path(folder) / "dataset.json").read_text())


def get_dataset_title(manifest: Manifest) -> str:
    """What a reader sees as a dataset's name: a shifted test's own comes after its dataset's."""
    shift = manifest["split"]
    return manifest["name"] if shift == "test" else f"{manifest['name']} · {shift}"


def get_split_path(folder: Path | str, split: str) -> Path:
    """The file of one split. Raises ForetuneError where it is not of the folder's manifest."""
    path = Path(folder) / f"{split}.parquet"
    if read_metadata(path)["digest"] != read_manifest(folder)["digest"]:
        raise ForetuneError(f"{path}: belongs to another version of the dataset; delete {folder}")
    return path


def read_split(folder: Path | str, split: str, columns: list[str] | None = None) -> pa.Table:
    """The rows of one split, all columns or some; errors as `get_split_path`."""
    return pq.read_table(get_split_path(folder, split), columns=columns)


def stream_split(folder: Path | str, split: str) -> Iterator[tuple[list[str], list[bytes]]]:
    """Ids and images of one split, a few rows at a time; errors as `get_split_path`."""
    file = pq.ParquetFile(get_split_path(folder, split), pre_buffer=False)
    for batch in file.iter_batches(READ_BATCH, columns=["id", "image"]):
        yield batch["id"].to_pylist(), batch["image"].to_pylist()


def decode_image(encoded: bytes, name: str) -> Image.Image:
    """The picture of one row in full; `name` says which in the error."""
    try:
        image = Image.open(io.BytesIO(encoded))
        image.load()
    except UnidentifiedImageError:  # whose message is of the bytes' address in memory
        raise ForetuneError(f"{name}: not a readable image (of no known format)") from None
    except Exception as error:  # PIL raises many kinds, all of them mean the same here
        raise ForetuneError(f"{name}: not a readable image ({error})") from None
    if image.mode.startswith(("I", "F")):
        raise ForetuneError(f"{name}: more than 8 bits a channel ({image.mode}); convert it first")
    return image
