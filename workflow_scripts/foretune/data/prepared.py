"""Read prepared datasets: the manifest, the rows of a split, and decoded images."""

import io
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NotRequired, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from foretune.core.errors import ForetuneError
from foretune.core.files import read_json
from foretune.core.parquet import explain_parquet_errors, read_metadata, read_table

SPLITS = ("train", "val", "test")
# A group is null if the source has no groups.
SPLIT_SCHEMA = pa.schema([
    ("id", pa.string()),
    ("image", pa.binary()),
    ("label", pa.int32()),
    ("group", pa.string()),
])  # fmt: skip
READ_BATCH = 64  # rows read or checked at a time; images of a megabyte are common

# A picture of more pixels takes half a gigabyte, and a longer one does so when its short side is
# scaled to a model's size.
MOST_PIXELS = 2 * 89_478_485  # what Pillow refuses; it warns of half as many
MOST_ELONGATED = 1000
# Formats of which Pillow asks another program, such as Ghostscript, to run the file's code.
RUN_BY_PROGRAMS = ("EPS", "WMF")
Image.MAX_IMAGE_PIXELS = MOST_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # of damaged EXIF blocks
# Long texts and colour profiles, such as editors and image generators write, do no harm.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 256 << 20


class SplitEntry(TypedDict):
    """The file of a split, relative to the manifest's folder, and facts about its rows."""

    file: str
    rows: int
    digest: str  # of the rows in their order


class DatasetFacts(TypedDict):
    """The facts about a dataset, or about one of its shifted tests, that are not computed."""

    name: str
    split: str  # "test", or the name of the shifted test
    classes: list[str]
    source_classes: list[str]  # the classes as the source names them
    caption: str
    licence: str
    source: str
    parent: NotRequired[str]  # digest of the dataset that a shifted test belongs to


class Manifest(DatasetFacts):
    """The content of `dataset.json`."""

    digest: str  # of the rows and classes
    test_digest: str  # of the images that the test is drawn from, in any order
    splits: dict[str, SplitEntry]


def read_manifest(folder: Path | str) -> Manifest:
    """Return the manifest of a prepared dataset. Raises ForetuneError if it cannot be read."""
    return read_json(Path(folder) / "dataset.json", Manifest)


def get_dataset_title(manifest: DatasetFacts) -> str:
    """Return the name that readers see; a shifted test has its name after its dataset's."""
    shift = manifest["split"]
    return manifest["name"] if shift == "test" else f"{manifest['name']} · {shift}"


def get_split_path(folder: Path | str, split: str) -> Path:
    """Return the file of one split.

    Raises:
        ForetuneError: the file is missing, or does not belong to the folder's manifest.
    """
    path = Path(folder) / f"{split}.parquet"
    if read_metadata(path).get("digest") != read_manifest(folder)["digest"]:
        raise ForetuneError(f"{path}: belongs to another version of the dataset; delete {folder}")
    return path


def read_split(folder: Path | str, split: str, columns: list[str] | None = None) -> pa.Table:
    """Return the rows of one split, with all or some columns. Raises as `get_split_path` does."""
    return read_table(get_split_path(folder, split), columns)


def stream_split(folder: Path | str, split: str) -> Iterator[tuple[list[str], list[bytes]]]:
    """Yield ids and images of one split in batches. Raises as `get_split_path` does."""
    path = get_split_path(folder, split)
    with explain_parquet_errors(path):
        file = pq.ParquetFile(path, pre_buffer=False)
        for batch in file.iter_batches(READ_BATCH, columns=["id", "image"]):
            yield batch["id"].to_pylist(), batch["image"].to_pylist()


def decode_image(encoded: bytes | ForetuneError, name: str) -> Image.Image:
    """Decode an image completely, and turn it upright.

    encoded: its bytes; or the error that its reader gave in their place, which is raised.

    Raises:
        ForetuneError: the image is broken, too large, or has more than 8 bits per channel. The
            message begins with `name`.
    """
    if isinstance(encoded, ForetuneError):
        raise encoded
    too_large = f"more than {MOST_PIXELS / 1e6:.0f} million pixels; scale it down or cut it up"
    try:
        image = Image.open(io.BytesIO(encoded))
        if image.format in RUN_BY_PROGRAMS:
            raise ForetuneError(f"{name}: {image.format} is drawn by a program; convert it to PNG")
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise Image.DecompressionBombError
        if max(width, height) > MOST_ELONGATED * max(1, min(width, height)):
            raise ForetuneError(
                f"{name}: {width} × {height} pixels are more than {MOST_ELONGATED} times as long "
                "as wide; cut it or remove it"
            )
        image.load()
    except ForetuneError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ForetuneError(f"{name}: {too_large}") from None
    except UnidentifiedImageError:  # its message has only an address in memory
        raise ForetuneError(f"{name}: not a readable image (of no known format)") from None
    except Exception as error:  # PIL raises many kinds, which all mean the same here
        raise ForetuneError(f"{name}: not a readable image ({error})") from None
    if image.mode.startswith(("I", "F")):
        raise ForetuneError(
            f"{name}: more than 8 bits per channel ({image.mode}); convert it first"
        )
    # A damaged EXIF block changes nothing. Pillow raises many kinds, and the pixels are decoded.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return image
