"""The types that readers of image sources return, and what the readers share.

A reader takes an entry of the config and the splits that are wanted, and returns an `ImageSource`.
Images are read one at a time and never decoded here: their encoded bytes are kept unchanged.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from foretune.core.errors import ForetuneError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
TRAIN_AND_TEST = ("train", "test")
NOT_STATED = "not stated"
DEFAULT_CAPTION = "a photo of a {}"


class ImageRow(NamedTuple):
    """An image: its id, which is stable and unique in the source, its encoded bytes, its label."""

    id: str
    image: bytes
    label: int


@dataclass
class ImageRows:
    """The images of a split: how many there are, and `read`, which makes one pass over them."""

    n: int
    read: Callable[[], Iterator[ImageRow]]


@dataclass
class ImageSource:
    """The images of a source, and the facts about them.

    Attributes:
        classes: class names in the order of the labels.
        caption: template with {} for the class name.
        licence: licence of the images.
        source: where they come from.
        rows: images by split, for the splits that were wanted. A source that is not divided into
            train and test has the one key "all" instead.
    """

    classes: list[str]
    caption: str
    licence: str
    source: str
    rows: dict[str, ImageRows]


def make_file_rows(folder: Path, files: list[tuple[Path, int]]) -> ImageRows:
    """Return rows of image files and their labels; the ids are the paths relative to `folder`."""

    def read() -> Iterator[ImageRow]:
        for file, label in files:
            try:
                yield ImageRow(str(file.relative_to(folder)), file.read_bytes(), label)
            except OSError as error:
                raise ForetuneError(f"{file}: cannot be read ({error.strerror})") from None

    return ImageRows(len(files), read)


def format_class_names(names: list[str]) -> list[str]:
    """Return class names as captions have them; folder names often have underscores."""
    return [name.replace("_", " ").replace("/", " ") for name in names]
