"""The types that readers of image sources return, and what the readers share.

A reader takes an entry of the config and the splits that are wanted, and returns an `ImageSource`.
Images are read one at a time and never decoded here: their encoded bytes are kept unchanged.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from foretune.core.errors import ForetuneError

# What Pillow opens without a further package. Its formats of other kinds of data (HDF5, EPS, ...),
# of icons, and of floating-point pixels are not among them.
IMAGE_SUFFIXES = {
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".webp", ".bmp", ".dib",
    ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".avifs", ".jp2", ".j2k",
    ".jpx", ".jpf", ".jpc", ".j2c", ".tga", ".pcx", ".sgi", ".rgb", ".qoi",
}  # fmt: skip
# Images that Pillow needs a further package for, and that must be converted.
OTHER_IMAGE_SUFFIXES = {
    ".heic", ".heif", ".hif", ".jxl", ".jxr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf",
    ".raf", ".rw2", ".svg", ".psd", ".pfm", ".exr", ".hdr", ".dcm", ".nii", ".pdf",
}  # fmt: skip
TRAIN_AND_TEST = ("train", "test")
NOT_STATED = "not stated"
DEFAULT_CAPTION = "a photo of a {}"


class ImageRow(NamedTuple):
    """An image: its id, which is stable and unique in the source, its encoded bytes, its label.

    An image that cannot be read has the error in the place of its bytes, so that one run of a
    preparation names all of them.
    """

    id: str
    image: bytes | ForetuneError
    label: int


@dataclass
class ImageRows:
    """The images of a split.

    Attributes:
        labels: the label of each image, known before any is read, so that splits can be drawn.
        read: makes one pass over the images.
        groups: the group of each image, if there are groups. Images of one group are near-copies,
            or otherwise not independent, and no split divides them.
    """

    labels: Sequence[int]
    read: Callable[[], Iterator[ImageRow]]
    groups: Sequence[str] | None = None

    @property
    def n(self) -> int:
        """The number of images."""
        return len(self.labels)


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
        left_out: how many files or rows were left out, by reason.
        notes: what else its user should know.
    """

    classes: list[str]
    caption: str
    licence: str
    source: str
    rows: dict[str, ImageRows]
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def make_file_rows(
    folder: Path, files: list[tuple[str, int]], groups: Sequence[str] | None = None
) -> ImageRows:
    """Return rows of image files, whose paths in `folder` are the ids, and of their labels."""

    def read() -> Iterator[ImageRow]:
        for name, label in files:
            yield ImageRow(name, read_image_file(folder / name), label)

    return ImageRows([label for _, label in files], read, groups)


def read_image_file(path: Path) -> bytes | ForetuneError:
    """Return the bytes of a file, or an error that names it."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a ValueError for a NUL in the path
        reason = getattr(error, "strerror", None) or error
        return ForetuneError(f"{path}: cannot be read ({reason})")


def make_groups(values: Iterable[Any]) -> list[str]:
    """Return the groups in a column as texts; an image without one is a group of its own."""
    return [
        f"alone {number}" if value is None or value != value or value == "" else str(value)
        for number, value in enumerate(values)
    ]


def format_class_names(names: Iterable[str]) -> list[str]:
    """Return class names as captions have them: in Unicode's form NFC, without underscores, and
    without blanks at their ends.

    File systems keep the form in which a name was typed, and letters with accents have two.
    """
    return [
        unicodedata.normalize("NFC", name).replace("_", " ").replace("/", " ").strip()
        for name in names
    ]


def sort_class_names(names: Iterable[str]) -> list[str]:
    """Return class names in the order of their labels: alphabetical, but numbers by their value."""
    unique = set(names)
    if all(name.isascii() and name.isdigit() for name in unique):
        return sorted(unique, key=lambda name: (len(name.lstrip("0")), name.lstrip("0"), name))
    return sorted(unique)


def join_names(names: Iterable[str], most: int = 10) -> str:
    """Return names for a message: all of them, or the first ones and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
