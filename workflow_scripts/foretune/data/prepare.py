"""Prepare image classification datasets: fix their splits and write the files for later steps.

A prepared dataset is a folder. `train.parquet`, `val.parquet` and `test.parquet` have the columns
`id` (stable), `image` (the encoded bytes of the source), `label` and `group` (null if the source
has no groups). `dataset.json` is a small
manifest with the classes, the caption template, licence, source and a digest of all rows. Jobs
depend on the manifest, so that they rerun only if the content changes.

A shifted test is such a folder with a test split only: images of a dataset's classes that come
from elsewhere (sketches, another camera). Its manifest has the dataset's name and classes, its
own name as `split`, and the dataset's digest as `parent`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from foretune.core.entries import SourceSpec
from foretune.core.errors import ForetuneError
from foretune.core.files import atomic_write, digest_json, write_json
from foretune.core.machine import count_cores
from foretune.core.parquet import add_metadata
from foretune.data.prepared import (
    READ_BATCH,
    SPLIT_SCHEMA,
    SPLITS,
    DatasetFacts,
    Manifest,
    decode_image,
    read_manifest,
)
from foretune.data.sources.base import ImageRow, ImageRows
from foretune.data.sources.read import read_source
from foretune.data.splits import draw_rows

# A row group is written when it reaches either size.
ROW_GROUP_ROWS, ROW_GROUP_BYTES = 4096, 32 << 20
MOST_VALIDATION = 5000  # images


def prepare_dataset(name: str, spec: SourceSpec, output: Path, seed: int) -> Manifest:
    """Write the splits of a dataset and its manifest to the folder `output`; return the manifest.

    Validation is a random 10% of train, at most 5000 images (the first paper's split). If the
    source is not divided into train and test, a random fifth becomes the test. Both are drawn by
    class, and whole groups are drawn. `seed` determines both draws.

    Args:
        spec: the dataset's entry in the config. Its `classes` are new names, either a list in the
            order of the labels or a mapping from old names.

    Raises:
        ForetuneError: an image is broken, a label is out of range, or a split or class is empty.
    """
    source = read_source(spec)
    classes = rename_classes(name, source.classes, spec.get("classes", source.classes))
    undivided = "all" in source.rows
    train = source.rows["all" if undivided else "train"]
    splits = np.full(train.n, "train", object)
    if undivided:
        splits[draw_rows(train.labels, train.groups, 1 / 5, 1, seed)] = "test"
    kept = np.flatnonzero(splits == "train").tolist()
    labels = [train.labels[row] for row in kept]
    groups = [train.groups[row] for row in kept] if train.groups else None
    share = min(1 / 10, MOST_VALIDATION / max(1, len(kept)))
    splits[np.array(kept, int)[draw_rows(labels, groups, share, 0, seed)]] = "val"
    streams = [RowStream(train, splits, source.classes, in_test_pool=undivided)]
    if not undivided:
        test = source.rows["test"]
        test_splits = np.full(test.n, "test", object)
        streams.append(RowStream(test, test_splits, source.classes, in_test_pool=True))
    facts: DatasetFacts = {
        "name": name,
        "split": "test",
        "classes": classes,
        "source_classes": source.classes,
        "caption": source.caption,
        "licence": source.licence,
        "source": source.source,
    }
    return write_dataset(facts, streams, SPLITS, output)


def rename_classes(
    dataset: str, old_names: list[str], new_names: list[str] | dict[str, str]
) -> list[str]:
    """Return the class names of a dataset as its entry in the config gives them.

    Raises:
        ForetuneError: the new names do not fit the old ones, or two classes get the same name.
    """
    where = f"datasets.{dataset}.classes"
    if isinstance(new_names, dict):
        unknown = [name for name in new_names if name not in old_names]
        if unknown:
            raise ForetuneError(f"{where}: not classes of the source: {unknown}")
        new_names = [new_names.get(name, name) for name in old_names]
    if len(new_names) != len(old_names):
        raise ForetuneError(f"{where}: {len(new_names)} names for {len(old_names)} classes")
    repeated = sorted({name for name in new_names if new_names.count(name) > 1})
    if repeated:
        raise ForetuneError(f"dataset {dataset}: two classes have the same name: {repeated}")
    return new_names


def prepare_shifted_test(shift: str, spec: SourceSpec, parent: Path, output: Path) -> Manifest:
    """Write a shifted test of the dataset in the folder `parent` to `output`; return its manifest.

    Classes are matched by their names in the sources. The test may have fewer classes than the
    dataset: predictions are over all classes of the dataset.

    Args:
        shift: the test's name in the config.
        spec: its entry in the config. Only its test rows are used, or all rows if the source is
            not divided into train and test.

    Raises:
        ForetuneError: the dataset lacks one of the classes, or as in `prepare_dataset`.
    """
    dataset = read_manifest(parent)
    name, known = dataset["name"], dataset["source_classes"]
    source = read_source(spec, ("test",))
    unknown = [label for label in source.classes if label not in known]
    if unknown:
        raise ForetuneError(
            f"datasets.{name}.shifted.{shift}: classes that {name} does not have: {unknown}; "
            f"rename them or leave them out ({name} has {', '.join(known[:5])}, ...)"
        )
    rows = source.rows["all" if "all" in source.rows else "test"]
    stream = RowStream(
        rows,
        np.full(rows.n, "test", object),
        source.classes,
        in_test_pool=True,
        labels=[known.index(label) for label in source.classes],
    )
    facts: DatasetFacts = {
        "name": name,
        "split": shift,
        "classes": dataset["classes"],
        "source_classes": known,
        "caption": dataset["caption"],
        "licence": source.licence,
        "source": source.source,
        "parent": dataset["digest"],
    }
    return write_dataset(facts, [stream], ("test",), output)


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

    def add(self, row: ImageRow, group: str | None) -> None:
        facts = f"{row.id}\0{row.label}\0{group}\0{len(row.image)}\0"
        self.digest.update(facts.encode() + row.image)
        self.buffer.append((*row, group))
        self.n, self.buffer_bytes = self.n + 1, self.buffer_bytes + len(row.image)
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


def write_dataset(
    facts: DatasetFacts, streams: list[RowStream], splits: tuple[str, ...], output: Path
) -> Manifest:
    """Check all rows, write the file of each split, and then the manifest, which is returned.

    The rows are read once, and only a few are in memory at a time. The manifest's `test_digest`
    covers the images that the test is drawn from and the names of their classes, in any order, so
    that the same test is recognized under two names.
    """
    name = facts["name"]
    labels_by_split: dict[str, set[int]] = {split: set() for split in splits}
    test_images: list[str] = []
    with ExitStack() as open_files:
        writers = {
            split: SplitWriter(open_files.enter_context(atomic_write(output / f"{split}.parquet")))
            for split in splits
        }
        for stream in streams:
            for split, row, group in check_rows(name, facts["split"], stream):
                if stream.in_test_pool:
                    test_images.append(digest_image(stream.classes[row.label], row.image))
                if stream.labels:
                    row = row._replace(label=stream.labels[row.label])
                labels_by_split[split].add(row.label)
                writers[split].add(row, group)
        check_splits(facts, labels_by_split)
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
    write_json(manifest, output / "dataset.json")
    return manifest


def digest_image(class_name: str, image: bytes) -> str:
    """Return a digest of an image's encoded bytes and the name of its class."""
    return hashlib.sha256(class_name.encode() + b"\0" + image).hexdigest()


def check_rows(
    dataset: str, test: str, stream: RowStream
) -> Iterator[tuple[str, ImageRow, str | None]]:
    """Yield (split, row, group) of a stream, after checking the label and decoding the image.

    Both mistakes would otherwise show, or mislead, hours later.

    Args:
        test: what error messages call the test split.
    """
    class_count = len(stream.classes)

    def check(item: tuple[str, ImageRow, str | None]) -> None:
        split, row, _ = item
        where = f"dataset {dataset}, {test if split == 'test' else split}, {row.id}"
        if not isinstance(row.label, int) or not 0 <= row.label < class_count:
            raise ForetuneError(f"{where}: label {row.label} is not in 0..{class_count - 1}")
        decode_image(row.image, where)

    groups: Sequence[str | None] = stream.rows.groups or [None] * stream.rows.n
    items = zip(stream.splits, stream.rows.read(), groups, strict=True)
    bar = tqdm(desc=dataset, total=stream.rows.n, mininterval=5, delay=5, unit="image")
    with bar, ThreadPoolExecutor(count_cores()) as pool:
        while batch := list(islice(items, READ_BATCH)):
            for _ in pool.map(check, batch):
                bar.update()
            yield from batch


def check_splits(facts: DatasetFacts, labels_by_split: dict[str, set[int]]) -> None:
    """Refuse an empty split, and a class without a training image."""
    for split, labels in labels_by_split.items():
        if not labels:
            hint = "; a tenth of train is taken, so give at least 10 images"
            raise ForetuneError(
                f"dataset {facts['name']}: no images in its {split} split"
                + (hint if split == "val" else "")
            )
    if "train" not in labels_by_split:
        return
    trained = labels_by_split["train"]
    missing = [name for label, name in enumerate(facts["classes"]) if label not in trained]
    if missing:
        raise ForetuneError(f"dataset {facts['name']}: no training image of {missing}")
