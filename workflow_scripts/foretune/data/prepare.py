"""Prepare image classification datasets: fix their splits and write the files for later steps.

A prepared dataset is a folder. `train.parquet`, `val.parquet` and `test.parquet` have the columns
`id` (stable), `image` (the encoded bytes of the source), `label` and `group` (null if the source
has no groups). `dataset.json` is a small
manifest with the classes, the caption template, licence, source and a digest of all rows. Jobs
depend on the manifest, so that they rerun only if the content changes. `notes.json` says what was
left out and what else users should know; it changes more often, and no training depends on it.

A shifted test is such a folder with a test split only: images of a dataset's classes that come
from elsewhere (sketches, another camera). Its manifest has the dataset's name and classes, its
own name as `split`, and the dataset's digest as `parent`.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from foretune.core.entries import SourceSpec
from foretune.core.errors import ForetuneError
from foretune.data.notes import PreparationNotes, format_notes
from foretune.data.prepared import SPLITS, DatasetFacts, Manifest, read_manifest
from foretune.data.sources.base import (
    ImageRow,
    ImageRows,
    ImageSource,
    format_class_names,
    join_names,
)
from foretune.data.sources.read import read_source
from foretune.data.splits import draw_rows
from foretune.data.write import RowStream, check_splits, write_dataset

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
    source, facts, streams = plan_splits(name, spec, seed)
    return write_dataset(facts, streams, SPLITS, output, get_notes(source))


def check_source(name: str, spec: SourceSpec, seed: int) -> list[str]:
    """Return what `prepare_dataset` would leave out and notice, without decoding an image.

    Raises ForetuneError as `prepare_dataset` does, but for broken images.
    """
    source, facts, streams = plan_splits(name, spec, seed)
    counts: dict[str, Counter[int]] = {split: Counter() for split in SPLITS}
    for stream in streams:
        for split, label in zip(stream.splits, stream.rows.labels, strict=True):
            counts[split][label] += 1
    check_splits(facts, counts, dict(source.left_out))
    return format_notes(get_notes(source))


def plan_splits(
    name: str, spec: SourceSpec, seed: int
) -> tuple[ImageSource, DatasetFacts, list[RowStream]]:
    """Return a dataset's source, the facts of its manifest, and its rows with their splits."""
    source = read_source(spec)
    if "class_half" in spec:
        source = take_class_half(name, source, spec["class_half"])
    new_names = spec.get("classes", source.classes)
    classes = rename_classes(name, source.classes, new_names)
    if isinstance(new_names, list):
        source.notes += describe_order(source.classes, classes)
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
    return source, facts, streams


def take_class_half(dataset: str, source: ImageSource, half: str) -> ImageSource:
    """Return a source with the first half of its classes ("base") or the others ("new").

    The first half has the middle class of an odd number.

    Raises:
        ForetuneError: there are fewer than four classes, so that a half would have a single one.
    """
    classes = source.classes
    if len(classes) < 4:
        raise ForetuneError(
            f"dataset {dataset}: has {len(classes)} classes, and halves of them need at least 4"
        )
    middle = (len(classes) + 1) // 2
    kept = range(middle) if half == "base" else range(middle, len(classes))
    rows = {split: take_labels(split_rows, kept) for split, split_rows in source.rows.items()}
    return replace(source, classes=[classes[label] for label in kept], rows=rows)


def take_labels(rows: ImageRows, kept: range) -> ImageRows:
    """Return the images with the labels `kept`, which are numbered from 0."""
    chosen = [number for number, label in enumerate(rows.labels) if label in kept]

    def read() -> Iterator[ImageRow]:
        for row in rows.read():
            if row.label in kept:
                yield row._replace(label=row.label - kept.start)

    labels = [rows.labels[number] - kept.start for number in chosen]
    return ImageRows(labels, read, rows.groups and [rows.groups[number] for number in chosen])


def rename_classes(
    dataset: str, old_names: list[str], new_names: list[str] | dict[str, str]
) -> list[str]:
    """Return the class names of a dataset as its entry in the config gives them.

    Raises:
        ForetuneError: the new names do not fit the old ones, or two classes get the same name.
    """
    where = f"datasets.{dataset}.classes"
    if isinstance(new_names, dict):
        keys, known = format_class_names(new_names), format_class_names(old_names)
        unknown = [name for name, key in zip(new_names, keys, strict=True) if key not in set(known)]
        if unknown:
            raise ForetuneError(
                f"{where}: not classes of the source: {unknown}; it has {join_names(old_names)}"
            )
        by_key = dict(zip(keys, new_names.values(), strict=True))
        new_names = [by_key.get(key, old) for key, old in zip(known, old_names, strict=True)]
    if len(new_names) != len(old_names):
        raise ForetuneError(
            f"{where}: {len(new_names)} names for {len(old_names)} classes: {join_names(old_names)}"
        )
    if blank := [old for old, new in zip(old_names, new_names, strict=True) if not new.strip()]:
        raise ForetuneError(f"dataset {dataset}: a class needs a name that is not blank: {blank}")
    counts = Counter(unicodedata.normalize("NFC", name) for name in new_names)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise ForetuneError(f"dataset {dataset}: two classes have the same name: {repeated}")
    return new_names


def describe_order(old_names: list[str], new_names: list[str]) -> list[str]:
    """Return a note on which class of a list got which name, if there are two orders to expect.

    The folders 1 to 10 or class1 to class10 have another order by the alphabet than by number.
    """

    def by_number(name: str) -> list[tuple[int, str]]:
        return [(len(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]

    if new_names == old_names or sorted(old_names) == sorted(old_names, key=by_number):
        return []
    order = "alphabetical order" if old_names == sorted(old_names) else "order of their numbers"
    pairs = (f"{old} is {new}" for old, new in zip(old_names, new_names, strict=True))
    return [f"the list `classes` names the classes in the {order}: {join_names(pairs)}"]


def get_notes(source: ImageSource) -> PreparationNotes:
    """Return what the source's reader left out and noticed."""
    return {"left_out": dict(source.left_out), "notes": source.notes}


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
    name, known = dataset["name"], format_class_names(dataset["source_classes"])
    source = read_source(spec, ("test",))
    labels = format_class_names(source.classes)
    unknown = [label for label in labels if label not in known]
    if unknown:
        raise ForetuneError(
            f"datasets.{name}.shifted.{shift}: classes that {name} does not have: {unknown}; "
            f"rename them or leave them out ({name} has {join_names(known, 5)})"
        )
    rows = source.rows["all" if "all" in source.rows else "test"]
    stream = RowStream(
        rows,
        np.full(rows.n, "test", object),
        source.classes,
        in_test_pool=True,
        labels=[known.index(label) for label in labels],
    )
    facts: DatasetFacts = {
        "name": name,
        "split": shift,
        "classes": dataset["classes"],
        "source_classes": dataset["source_classes"],
        "caption": dataset["caption"],
        "licence": source.licence,
        "source": source.source,
        "parent": dataset["digest"],
    }
    return write_dataset(facts, [stream], ("test",), output, get_notes(source))
