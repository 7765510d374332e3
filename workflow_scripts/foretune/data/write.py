"""Write a prepared dataset: check its rows, and write its splits, its manifest and its notes."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from foretune.core.errors import ForetuneError
from foretune.core.files import atomic_write, digest_json, write_json
from foretune.core.machine import count_cores
from foretune.core.parquet import add_metadata
from foretune.data.notes import NOTES_FILE, PreparationNotes
from foretune.data.pictures import Picture, Pictures, describe_picture
from foretune.data.prepared import (
    READ_BATCH,
    SPLIT_SCHEMA,
    DatasetFacts,
    Manifest,
    decode_image,
)
from foretune.data.sources.base import ImageRow, ImageRows, join_names
from foretune.data.sources.listing import format_left_out

# A row group is written when it reaches either size.
ROW_GROUP_ROWS, ROW_GROUP_BYTES = 4096, 32 << 20
MOST_ERRORS = 100  # broken images after which a preparation ends
MOST_SHOWN_ERRORS = 20


@dataclass
class RowStream:
    """Rows of a source, and what to do with them.

    Attributes:
        rows: the images.
        splits: name of each row's split, an array of objects of shape (rows.n,).
        classes: the source's class names.
        in_test_pool: whether the test is drawn from these rows, so that they count for the
            manifest's `test_digest`.
        labels: for each label of the source the label to write; None keeps them.
    """

    rows: ImageRows
    splits: np.ndarray
    classes: list[str]
    in_test_pool: bool
    labels: list[int] | None = None


class SplitWriter:
    """Write a split's Parquet file row group by row group, and compute the digest of its rows."""

    def __init__(self, path: Path):
        self.writer = pq.ParquetWriter(path, SPLIT_SCHEMA, compression="zstd")
        self.digest = hashlib.sha256()
        self.n = 0
        self.buffer: list[tuple[str, bytes, int, str | None]] = []
        self.buffer_bytes = 0

    def add(self, name: str, image: bytes, label: int, group: str | None) -> None:
        facts = f"{name}\0{label}\0{group}\0{len(image)}\0"
        self.digest.update(facts.encode() + image)
        self.buffer.append((name, image, label, group))
        self.n, self.buffer_bytes = self.n + 1, self.buffer_bytes + len(image)
        if len(self.buffer) == ROW_GROUP_ROWS or self.buffer_bytes > ROW_GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        columns = [list(column) for column in zip(*self.buffer, strict=True)]
        self.writer.write_table(pa.table(columns, schema=SPLIT_SCHEMA))
        self.buffer, self.buffer_bytes = [], 0

    def close(self, metadata: dict) -> None:
        if self.buffer:
            self.flush()
        add_metadata(self.writer, metadata)
        self.writer.close()


class CheckedRow(NamedTuple):
    """A row that can be written, with its split and the facts about its picture."""

    split: str
    name: str
    image: bytes
    label: int
    group: str | None
    picture: Picture


def write_dataset(
    facts: DatasetFacts,
    streams: list[RowStream],
    splits: tuple[str, ...],
    output: Path,
    source_notes: PreparationNotes | None = None,
) -> Manifest:
    """Check all rows, write the file of each split, the notes, and then the manifest.

    The rows are read once, and only a few are in memory at a time. The manifest's `test_digest`
    covers the images that the test is drawn from and the names of their classes, in any order, so
    that the same test is recognized under two names.

    Returns:
        The manifest.

    Raises:
        ForetuneError: images cannot be used, and the message names them; or a split is empty, or
            a class has no training image.
    """
    name = facts["name"]
    left_out = dict(source_notes["left_out"]) if source_notes else {}
    notes = list(source_notes["notes"]) if source_notes else []
    counts: dict[str, Counter[int]] = {split: Counter() for split in splits}
    test_images: list[str] = []
    pictures, errors = Pictures(), list[str]()
    with ExitStack() as open_files:
        writers = {
            split: SplitWriter(open_files.enter_context(atomic_write(output / f"{split}.parquet")))
            for split in splits
        }
        for stream in streams:
            for row in check_rows(name, facts["split"], stream, errors):
                if stream.in_test_pool:
                    test_images.append(digest_image(stream.classes[row.label], row.image))
                label = stream.labels[row.label] if stream.labels else row.label
                counts[row.split][label] += 1
                pictures.add(row.picture, row.name, label, row.split == "test")
                writers[row.split].add(row.name, row.image, label, row.group)
        refuse_errors(name, errors)
        check_splits(facts, counts, left_out)
        digests = {split: writer.digest.hexdigest() for split, writer in writers.items()}
        manifest: Manifest = {
            **facts,
            "digest": digest_json([facts["classes"], facts["source_classes"], digests]),
            "test_digest": digest_json(sorted(test_images)),
            "splits": {
                split: {"file": f"{split}.parquet", "rows": writer.n, "digest": digests[split]}
                for split, writer in writers.items()
            },
        }
        for split, writer in writers.items():
            writer.close({"dataset": name, "split": split, "digest": manifest["digest"]})
    notes += [*describe_untested(facts["classes"], counts), *pictures.describe(facts["classes"])]
    write_json({"left_out": left_out, "notes": notes}, output / NOTES_FILE)
    write_json(manifest, output / "dataset.json")
    return manifest


def digest_image(class_name: str, image: bytes) -> str:
    """Return a digest of an image's encoded bytes and the name of its class."""
    return hashlib.sha256(class_name.encode() + b"\0" + image).hexdigest()


def check_rows(
    dataset: str, test: str, stream: RowStream, errors: list[str]
) -> Iterator[CheckedRow]:
    """Yield the rows of a stream that can be used, after checking the label and the image.

    Both mistakes would otherwise show, or mislead, hours later.

    Args:
        test: what error messages call the test split.
        errors: messages about the other rows are added to it.
    """
    class_count = len(stream.classes)

    def check(item: tuple[str, ImageRow, str | None]) -> CheckedRow | ForetuneError:
        split, row, group = item
        where = f"dataset {dataset}, {test if split == 'test' else split}, {row.id}"
        if not isinstance(row.label, int) or not 0 <= row.label < class_count:
            return ForetuneError(f"{where}: label {row.label} is not in 0..{class_count - 1}")
        try:
            picture = describe_picture(decode_image(row.image, where))
        except ForetuneError as error:
            return error
        assert isinstance(row.image, bytes)
        return CheckedRow(split, row.id, row.image, row.label, group, picture)

    groups: Sequence[str | None] = stream.rows.groups or [None] * stream.rows.n
    items = zip(stream.splits, stream.rows.read(), groups, strict=True)
    bar = tqdm(desc=dataset, total=stream.rows.n, mininterval=5, delay=5, unit="image")
    with bar, ThreadPoolExecutor(count_cores()) as pool:
        while len(errors) < MOST_ERRORS and (batch := list(islice(items, READ_BATCH))):
            for row in pool.map(check, batch):
                bar.update()
                if isinstance(row, CheckedRow):
                    yield row
                    continue
                errors.append(str(row))
                if len(errors) <= MOST_SHOWN_ERRORS:  # at once: the end may be hours away
                    print(row, flush=True)


def refuse_errors(dataset: str, errors: list[str]) -> None:
    """Raise one ForetuneError for all messages about rows, if there are any."""
    if len(errors) == 1:
        raise ForetuneError(errors[0])
    if errors:
        more = "at least " if len(errors) >= MOST_ERRORS else ""
        lines = errors[:MOST_SHOWN_ERRORS]
        if len(errors) > len(lines):
            lines = [*lines, f"and {len(errors) - len(lines)} more"]
        raise ForetuneError(
            "\n  ".join([f"dataset {dataset}: {more}{len(errors)} images cannot be used:", *lines])
        )


def check_splits(
    facts: DatasetFacts, counts: dict[str, Counter[int]], left_out: dict[str, int]
) -> None:
    """Refuse an empty split, and a class without a training image.

    counts: the number of images of each label, by split.
    """
    name, classes = facts["name"], facts["classes"]
    why = f" ({format_left_out(Counter(left_out))})" if left_out else ""
    for split, of_labels in counts.items():
        if of_labels:
            continue
        hint = ""
        if split == "val":
            total = sum(counts.values(), Counter())
            rare = [classes[label] for label in sorted(total) if total[label] < 3]
            hint = "; a tenth of train is taken and one image of each class is left, so give at "
            hint += "least 12 images, and 3 of each class"
            hint += f" (fewer have {len(rare)} of {len(classes)}: {join_names(rare)})" * bool(rare)
        raise ForetuneError(f"dataset {name}: no images in its {split} split{hint}{why}")
    if "train" not in counts:
        return
    missing = [name for label, name in enumerate(classes) if not counts["train"][label]]
    if missing:
        raise ForetuneError(
            f"dataset {name}: no training image of {missing}; a class needs 1 image in train/, or "
            f"2 to be in the training and the test{why}"
        )


def describe_untested(classes: list[str], counts: dict[str, Counter[int]]) -> list[str]:
    """Return a note on the classes that a dataset's test lacks. A shifted test may lack some."""
    if "train" not in counts:
        return []
    missing = [name for label, name in enumerate(classes) if not counts["test"][label]]
    if not missing:
        return []
    return [
        f"no test image of {len(missing)} of {len(classes)} classes: {join_names(missing)}; a "
        "class needs 2 images, or 2 groups, to be in the training and the test"
    ]
