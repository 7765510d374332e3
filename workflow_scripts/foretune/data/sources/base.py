"""Where images and labels come from: Parquet, image folders, a table of files, and by library.

A reader takes a config's entry and the splits that are wanted, and gives a `ImageSource`. Images are
read one at a time and never decoded here: their encoded bytes are kept as they came.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from foretune.core.errors import ForetuneError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
TRAIN_AND_TEST = ("train", "test")
NOT_STATED = "not stated"
DEFAULT_CAPTION = "a photo of a {}"


@dataclass
class ImageRows:
    """Images of a split: how many, and `read`, one pass over (id, encoded bytes, label)."""

    n: int
    read: Callable[[], Iterator[tuple[str, bytes, int]]]


@dataclass
class ImageSource:
    """What a source gives.

    rows: of the wanted splits by name; of an undivided source "all" alone, of which a test is
    drawn where one is wanted.
    """

    classes: list[str]
    caption: str
    licence: str
    source: str
    rows: dict[str, ImageRows]


def make_file_rows(folder: Path, files: list[tuple[Path, int]]) -> ImageRows:
    """Rows of image files with their labels; their ids are the paths from `folder` on."""

    def read() -> Iterator[tuple[str, bytes, int]]:
        for file, label in files:
            try:
                yield str(file.relative_to(folder)), file.read_bytes(), label
            except OSError as error:
                raise ForetuneError(f"{file}: cannot be read ({error.strerror})") from None

    return ImageRows(len(files), read)


def format_class_names(names: list[str]) -> list[str]:
    """Class names as captions have them: folders are commonly written with underscores."""
    return [name.replace("_", " ").replace("/", " ") for name in names]
