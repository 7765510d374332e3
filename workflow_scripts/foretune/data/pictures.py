"""Notice pictures that occur more than once, and pictures of one colour.

They are compared by their pixels, so that the name and the encoding of a file do not count.
"""

from array import array
from typing import NamedTuple

import numpy as np
from PIL import Image

from foretune.data.sources.base import join_names


class Picture(NamedTuple):
    """A hash of an image's pixels, 64 bits of this process, and whether all pixels are equal."""

    digest: int
    constant: bool


def describe_picture(image: Image.Image) -> Picture:
    """Return the facts about a decoded image that `Pictures` compares."""
    if image.mode == "1":  # whose pixels share bytes
        image = image.convert("L")
    pixels = image.tobytes()
    # Python's own hash is several times as fast as a digest, which would cost as much as decoding.
    palette = bytes(image.getpalette() or []) if image.mode == "P" else b""
    digest = hash((image.mode, image.size, palette, pixels)) & 2**64 - 1
    width = len(pixels) // (image.width * image.height)
    return Picture(digest, pixels == pixels[:width] * (image.width * image.height))


class Pictures:
    """Collects 21 bytes per image of a dataset, and reports duplicates and blank images."""

    def __init__(self) -> None:
        self.digests, self.ids = array("Q"), array("q")
        self.labels, self.in_test = array("i"), array("b")
        self.constant = 0

    def add(self, picture: Picture, name: str, label: int, in_test: bool) -> None:
        """Take note of a picture with its id and label, and whether it is in the test."""
        self.digests.append(picture.digest)
        self.ids.append(hash(name))
        self.labels.append(label)
        self.in_test.append(in_test)
        self.constant += picture.constant

    def describe(self, classes: list[str]) -> list[str]:
        """Return notes on pictures of one colour, copies, and ids that occur twice."""
        n, notes = len(self.digests), []
        if not n:
            return []
        if self.constant:
            notes.append(f"{self.constant} of {n} images have one colour only")
        labels, in_test = np.asarray(self.labels), np.asarray(self.in_test, bool)
        _, group, sizes = np.unique(self.digests, return_inverse=True, return_counts=True)
        lowest, highest = np.full(len(sizes), len(classes)), np.full(len(sizes), -1)
        np.minimum.at(lowest, group, labels)
        np.maximum.at(highest, group, labels)
        shared = (lowest < highest)[group]
        if shared.any():
            names = join_names(classes[label] for label in np.unique(labels[shared]))
            notes.append(
                f"{shared.sum()} of {n} images occur in several classes, which no model can tell "
                f"apart by them: {names}"
            )
        trained = np.zeros(len(sizes), bool)
        trained[group[~in_test]] = True
        leaked = in_test & trained[group]
        if leaked.any():
            notes.append(
                f"{leaked.sum()} of {in_test.sum()} test images are also among the training "
                "images, so that the accuracy is too high; remove the copies, or give them one "
                "group"
            )
        if copies := n - len(sizes):
            notes.append(f"{copies} of {n} images are copies of another one")
        if same := n - len(np.unique(self.ids)):
            notes.append(f"{same} of {n} images have the name of another one")
        return notes
