"""Read public datasets: torchvision's and Hugging Face's here, WebDataset tars in webdataset.py.

The `root` of an entry is the folder of its files. `make fetch` downloads them (planning/fetch.py);
nothing is downloaded here.
"""

import inspect
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foretune.core.entries import SourceSpec
from foretune.core.errors import ForetuneError
from foretune.data.sources.base import (
    DEFAULT_CAPTION,
    NOT_STATED,
    ImageRow,
    ImageRows,
    ImageSource,
    format_class_names,
)
from foretune.data.sources.registry import explain_dataset_fetch, get_known_source
from foretune.data.sources.webdataset import read_webdataset


def read_public_source(spec: SourceSpec, wanted: tuple[str, ...]) -> ImageSource:
    """Return a public dataset as a source; the registry's class names and caption take precedence.

    Raises:
        ForetuneError: files are missing or broken; the message says how to get them.
    """
    root = Path(spec["root"])
    if not root.is_dir():
        raise ForetuneError(f"{root}: no such folder; {explain_dataset_fetch(spec)}")
    if "torchvision" in spec:
        kind, name, reader = "torchvision", spec["torchvision"], read_torchvision
    elif "webdataset" in spec:
        kind, name, reader = "webdataset", spec["webdataset"], read_webdataset
    else:
        kind, name, reader = "huggingface", spec["huggingface"], read_huggingface
    source = reader(root, spec, wanted)
    facts = get_known_source("torchvision" if kind == "torchvision" else "hub", name)
    source.classes = facts.get("classes", source.classes)
    source.caption = facts.get("caption", source.caption)
    source.licence, source.source = facts.get("licence", NOT_STATED), f"{kind} {name}"
    return source


def read_torchvision(root: Path, spec: SourceSpec, wanted: tuple[str, ...]) -> ImageSource:
    """Read a classification dataset of torchvision, from the files that torchvision downloads.

    Image files are kept unchanged, and arrays become PNG. A dataset that torchvision does not
    divide into train and test is an undivided source.
    """
    from torchvision import datasets

    dataset_class = getattr(datasets, spec["torchvision"])
    parameters = inspect.signature(dataset_class).parameters
    arguments: dict[str, dict[str, Any]]
    if "split" in parameters:
        arguments = {split: {"split": split} for split in wanted}
    elif "train" in parameters:
        arguments = {split: {"train": split == "train"} for split in wanted}
    else:
        arguments = {"all": {}}
    rows = {}
    for split, options in arguments.items():
        try:
            dataset = dataset_class(root, download=False, **options)
        except Exception as error:  # torchvision raises many kinds, also AssertionError
            reason = re.sub(r"\.? You can use download=True.*", "", str(error))
            raise ForetuneError(
                f"{root}: the files of {spec['torchvision']} are missing or broken ({reason}); "
                f"{explain_dataset_fetch(spec)}"
            ) from None
        rows[split] = make_torchvision_rows(dataset, root, split)
    classes = format_class_names(getattr(dataset, "classes", []))
    return ImageSource(classes, DEFAULT_CAPTION, NOT_STATED, "", rows)


def make_torchvision_rows(dataset: Any, root: Path, split: str) -> ImageRows:
    """Return the rows of a torchvision dataset, from its list of files if it has one."""
    listed: Any
    if hasattr(dataset, "_image_files"):
        listed = zip(dataset._image_files, dataset._labels, strict=True)
    else:
        listed = getattr(dataset, "samples", getattr(dataset, "_samples", None))
    # Sorted, because some datasets list their files in the order of the file system.
    files = None if listed is None else sorted((Path(file), int(label)) for file, label in listed)

    def read() -> Iterator[ImageRow]:
        for number in range(len(dataset)):
            if files is None:
                image, label = dataset[number]
                buffer = io.BytesIO()
                image.save(buffer, "PNG")
                yield ImageRow(f"{split}/{number:06d}", buffer.getvalue(), int(label))
                continue
            file, label = files[number]
            try:
                yield ImageRow(str(file.relative_to(root)), file.read_bytes(), label)
            except OSError as error:
                raise ForetuneError(f"{file}: cannot be read ({error.strerror})") from None

    if files is not None:
        labels = [label for _, label in files]
    else:
        # MNIST and CIFAR call them targets, SVHN labels; other classes must be iterated over.
        known = getattr(dataset, "targets", getattr(dataset, "labels", None))
        labels = [int(label) for label in ([y for _, y in dataset] if known is None else known)]
    return ImageRows(labels, read)


def read_huggingface(root: Path, spec: SourceSpec, wanted: tuple[str, ...]) -> ImageSource:
    """Read a folder with Hugging Face's library `datasets`.

    The folder is a dataset repository of the hub (Parquet files or images) or was written by
    `save_to_disk`. In the entry, `subset` is the name of the configuration, and `splits` has the
    library's names of the splits. `image` and `label` are columns, by default the first column of
    images and the first of class labels, and `group` is the column of groups, if there are groups.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # otherwise the library reports its use
    try:
        import datasets
    except ImportError:
        raise ForetuneError(
            "Hugging Face's datasets are read by the package datasets: pip install datasets"
        ) from None
    rows = {}
    classes: list[str] = []
    for split in wanted:
        name = spec.get("splits", {}).get(split, split)
        try:
            if (root / "dataset_dict.json").is_file():
                table = datasets.load_from_disk(str(root))[name]
            else:
                table = datasets.load_dataset(str(root), spec.get("subset"), split=name)
        except Exception as error:  # from pyarrow, fsspec and the library itself
            raise ForetuneError(
                f"{root}: datasets cannot read split {name} ({error}); "
                f"{explain_dataset_fetch(spec)}"
            ) from None
        image = find_huggingface_column(table, "image", spec.get("image"), datasets.Image, root)
        label = find_huggingface_column(
            table, "label", spec.get("label"), datasets.ClassLabel, root
        )
        feature = table.features[label]
        if isinstance(feature, datasets.ClassLabel):
            values, names = list(range(len(feature.names))), feature.names
        else:
            values = sorted(table.unique(label))
            names = [str(value) for value in values]
        classes = classes or names
        unknown = [class_name for class_name in names if class_name not in classes]
        if unknown:
            raise ForetuneError(
                f"{root}: {name}: classes that {wanted[0]} does not have: {unknown}"
            )
        labels = {v: classes.index(class_name) for v, class_name in zip(values, names, strict=True)}
        encoded = table.cast_column(image, datasets.Image(decode=False))
        rows[split] = make_huggingface_rows(encoded.select_columns([image, label]), split, labels)
        if "group" in spec:
            group = find_huggingface_column(table, "group", spec["group"], type(None), root)
            rows[split].groups = list(map(str, table[group]))
    return ImageSource(format_class_names(classes), DEFAULT_CAPTION, NOT_STATED, "", rows)


def find_huggingface_column(
    table: Any, key: str, column: str | None, feature: type, root: Path
) -> str:
    """Return `column` if it is given, otherwise the first column with this kind of feature.

    Args:
        key: the key of the entry that names the column, for the error message.

    Raises:
        ForetuneError: the table has no such column.
    """
    fitting = [name for name, kind in table.features.items() if isinstance(kind, feature)]
    column = column or next(iter(fitting), key)
    if column not in table.features:
        columns = ", ".join(table.features)
        raise ForetuneError(
            f"{root}: has no column {column} (it has {columns}); name it by `{key}:`"
        )
    return column


def make_huggingface_rows(table: Any, split: str, labels: dict[Any, int]) -> ImageRows:
    """Return rows of a table with two columns: images, as encoded bytes or paths, and values.

    Args:
        labels: the label of each value.
    """
    image, label = table.column_names

    def read() -> Iterator[ImageRow]:
        for number, row in enumerate(table):
            content = row[image]["bytes"] or Path(row[image]["path"]).read_bytes()
            yield ImageRow(f"{split}/{number:06d}", content, labels.get(row[label], row[label]))

    return ImageRows([labels.get(value, value) for value in table[label]], read)
