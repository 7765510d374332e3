"""The types that readers of image sources return, and what the readers share.

A reader takes an entry of the config and the splits that are wanted, and returns an `ImageSource`.
Images are read one at a time and never decoded here: their encoded bytes are kept unchanged.
"""

from collections.abc import Callable, Iterator, Sequence
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
    """

    classes: list[str]
    caption: str
    licence: str
    source: str
    rows: dict[str, ImageRows]


def make_file_rows(
    folder: Path, files: list[tuple[Path, int]], groups: Sequence[str] | None = None
) -> ImageRows:
    """Return rows of image files and their labels; the ids are the paths relative to `folder`."""

    def read() -> Iterator[ImageRow]:
        for file, label in files:
            try:
                yield ImageRow(str(file.relative_to(folder)), file.read_bytes(), label)
            except OSError as error:
                raise ForetuneError(f"{file}: cannot be read ({error.strerror})") from None

    return ImageRows([label for _, label in files], read, groups)


def format_class_names(names: list[str]) -> list[str]:
    """Return class names as captions have them; folder names often have underscores."""
    return [name.replace("_", " ").replace("/", " ") for name in names]
