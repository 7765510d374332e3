"""Image classification datasets: sources, fixed splits, and the files that later steps read.

A prepared dataset is a folder: `train.parquet`, `val.parquet` and `test.parquet` with the
columns `id` (stable), `image` (the encoded bytes as they came) and `label`, and
`dataset.json`, a small manifest with the classes, the caption template, licence, source and
a digest of all rows. Jobs depend on the manifest, so that only content makes them rerun.

A shifted test is such a folder with a test split only: images of a dataset's classes that come
from elsewhere (sketches, another camera). Its manifest has the dataset's name and classes, its
own name as `split`, and as `parent` the digest of the dataset.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from foretune.core.errors import ForetuneError
from foretune.core.files import atomic_write, digest_json, write_json
from foretune.core.parquet import add_metadata
from foretune.data.prepared import READ_BATCH, SPLIT_SCHEMA, SPLITS, decode_image, read_manifest
from foretune.data.sources.base import ImageRows
from foretune.data.sources.read import read_source

ROW_GROUP_ROWS, ROW_GROUP_BYTES = 4096, 32 << 20  # of a row group, whichever comes first


def draw_rows(total: int, part: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`part` row numbers taken at random, and the others, both in order."""
    order = np.random.default_rng(seed).permutation(total)
    return np.sort(order[:part]), np.sort(order[part:])


def prepare_dataset(name: str, spec: dict, output: Path, seed: int) -> dict:
    """Write the splits of a dataset and its manifest to the folder `output`; the manifest.

    spec: a config's entry (see image_sources.py), optionally with `classes`: new names in label
    order, or by the old ones. Validation is a random 10% of train, at most 5000 images, by `seed`
    (the first paper's split). Of an undivided source a random fifth, by `seed`, is the test.
    Raises ForetuneError for a broken image, a label out of range, or an empty split or class.
    """
    source = read_source(spec)
    classes = rename_classes(name, source.classes, spec.get("classes", source.classes))
    undivided = "all" in source.rows
    train = source.rows["all" if undivided else "train"]
    held_out, kept = draw_rows(train.n, train.n // 5 if undivided else 0, seed)
    validation, _ = draw_rows(len(kept), min(len(kept) // 10, 5000), seed)
    splits = np.full(train.n, "train", object)
    splits[held_out], splits[kept[validation]] = "test", "val"
    streams = [RowStream(train, splits, source.classes, pooled=undivided)]
    if not undivided:
        test = source.rows["test"]
        streams.append(
            RowStream(test, np.full(test.n, "test", object), source.classes, pooled=True)
        )
    manifest = {
        "name": name,
        "split": "test",
        "classes": classes,
        "source_classes": source.classes,
        "caption": source.caption,
        "licence": source.licence,
        "source": source.source,
    }
    return write_dataset(manifest, streams, SPLITS, output)


def rename_classes(name: str, known: list[str], given: list[str] | dict[str, str]) -> list[str]:
    """A dataset's class names as its entry in the config gives them."""
    where = f"datasets.{name}.classes"
    if isinstance(given, dict):
        odd = [each for each in given if each not in known]
        if odd:
            raise ForetuneError(f"{where}: no classes of the source: {odd}")
        given = [given.get(each, each) for each in known]
    if len(given) != len(known):
        raise ForetuneError(f"{where}: {len(given)} names for {len(known)} classes")
    twice = sorted({each for each in given if given.count(each) > 1})
    if twice:
        raise ForetuneError(f"dataset {name}: two classes have the same name: {twice}")
    return given


def prepare_shifted_test(shift: str, spec: dict, parent: Path, output: Path) -> dict:
    """Write a test with the classes of the dataset in the folder `parent`; its manifest.

    spec: a config's entry, of which only the test rows are taken, or all where it is undivided.
    Classes are matched by the names that they have in the sources. There may be fewer of them
    than the parent has: predictions are over all of the parent's.
    Raises ForetuneError for a class that the parent lacks, and as `prepare_dataset` does.
    """
    dataset = read_manifest(parent)
    name, known = dataset["name"], dataset["source_classes"]
    source = read_source(spec, ("test",))
    unknown = [each for each in source.classes if each not in known]
    if unknown:
        raise ForetuneError(
            f"datasets.{name}.shifted.{shift}: classes that {name} does not have: {unknown}; "
            f"rename them or leave them out ({name} has {', '.join(known[:5])}, ...)"
        )
    rows = source.rows["all" if "all" in source.rows else "test"]
    labels = [known.index(each) for each in source.classes]
    splits = np.full(rows.n, shift, object)
    stream = RowStream(rows, splits, source.classes, pooled=True, labels=labels)
    manifest = {
        **{key: dataset[key] for key in ("name", "classes", "source_classes", "caption")},
        "split": shift,
        "parent": dataset["digest"],
        "licence": source.licence,
        "source": source.source,
    }
    return write_dataset(manifest, [stream], ("test",), output)


@dataclass
class RowStream:
    """Rows on their way to the splits' files.

    splits: of each row, by name; classes: the source's; pooled: whether the test is drawn from
    these rows (all of an undivided source, else the test itself); labels: what the source's become.
    """

    rows: ImageRows
    splits: np.ndarray
    classes: list[str]
    pooled: bool
    labels: list[int] | None = None


class SplitWriter:
    """A split's Parquet file in the making, a row group at a time, and the digest of its rows."""

    def __init__(self, path: Path):
        self.writer = pq.ParquetWriter(path, SPLIT_SCHEMA, compression="zstd")
        self.digest, self.n, self.kept, self.size = hashlib.sha256(), 0, [], 0

    def add(self, row: tuple[str, bytes, int]) -> None:
        self.digest.update(f"{row[0]}\0{row[2]}\0{len(row[1])}\0".encode() + row[1])
        self.kept.append(row)
        self.n, self.size = self.n + 1, self.size + len(row[1])
        if len(self.kept) == ROW_GROUP_ROWS or self.size > ROW_GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        columns = [list(column) for column in zip(*self.kept, strict=True)]
        self.writer.write_table(pa.table(columns, schema=SPLIT_SCHEMA))
        self.kept, self.size = [], 0

    def close(self, metadata: dict) -> None:
        if self.kept:
            self.flush()
        add_metadata(self.writer, metadata)
        self.writer.close()


def write_dataset(
    manifest: dict, streams: list[RowStream], splits: tuple[str, ...], output: Path
) -> dict:
    """Check all rows and write each split's, then the manifest with digests and splits added.

    Rows go through once, a few in memory at a time. `test_digest` is of the images that the test
    is drawn from and the names of their classes, whatever their order, so that the same test under
    two names is known for one.
    """
    name = manifest["name"]
    seen: dict[str, set[int]] = {split: set() for split in splits}
    images: list[str] = []
    with ExitStack() as whole:
        files = {
            split: SplitWriter(whole.enter_context(atomic_write(output / f"{split}.parquet")))
            for split in splits
        }
        for stream in streams:
            for split, row in check_rows(name, stream):
                if stream.pooled:
                    images.append(digest_image(stream.classes[row[2]], row[1]))
                split = split if split in files else "test"  # of a shifted test
                if stream.labels:
                    row = (*row[:2], stream.labels[row[2]])
                seen[split].add(row[2])
                files[split].add(row)
        check_splits(manifest, seen)
        digests = {split: file.digest.hexdigest() for split, file in files.items()}
        manifest |= {
            "digest": digest_json([manifest["classes"], manifest["source_classes"], digests]),
            "test_digest": digest_json(sorted(images)),
            "splits": {s: {"file": f"{s}.parquet", "rows": file.n} for s, file in files.items()},
        }
        for split, file in files.items():
            file.close({"dataset": name, "split": split, "digest": manifest["digest"]})
    write_json(manifest, output / "dataset.json")
    return manifest


def digest_image(label: str, image: bytes) -> str:
    return hashlib.sha256(label.encode() + b"\0" + image).hexdigest()


def check_rows(name: str, stream: RowStream) -> Iterator[tuple[str, tuple[str, bytes, int]]]:
    """(split, row) of a stream, each checked for what would fail, or mislead, hours later."""
    classes = len(stream.classes)

    def check(item: tuple[str, tuple[str, bytes, int]]) -> None:
        split, (identity, image, label) = item
        if not isinstance(label, int) or not 0 <= label < classes:
            raise ForetuneError(
                f"dataset {name}, {split}, {identity}: label {label} is not in 0..{classes - 1}"
            )
        decode_image(image, f"dataset {name}, {split}, {identity}")

    items = zip(stream.splits, stream.rows.read(), strict=True)
    bar = tqdm(desc=name, total=stream.rows.n, mininterval=5, delay=5, unit="image")
    with bar, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        while some := list(islice(items, READ_BATCH)):
            for _ in pool.map(check, some):
                bar.update()
            yield from some


def check_splits(manifest: dict, seen: dict[str, set[int]]) -> None:
    """Refuse an empty split, and a class without an image to train on."""
    for split, labels in seen.items():
        if not labels:
            hint = "; a tenth of train is taken, so give at least 10 images"
            raise ForetuneError(
                f"dataset {manifest['name']}: no images in its {split} split"
                + (hint if split == "val" else "")
            )
    classes = enumerate(manifest["classes"])
    missing = [each for label, each in classes if "train" in seen and label not in seen["train"]]
    if missing:
        raise ForetuneError(f"dataset {manifest['name']}: no training image of {missing}")
