"""Read public datasets: torchvision's here, others in huggingface.py and webdataset.py.

The `root` of an entry is the folder of its files. `make fetch` downloads them (planning/fetch.py);
nothing is downloaded here.
"""

import inspect
import io
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
    read_image_file,
)
from foretune.data.sources.huggingface import read_huggingface
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
            yield ImageRow(str(file.relative_to(root)), read_image_file(file), label)

    if files is not None:
        labels = [label for _, label in files]
    else:
        # MNIST and CIFAR call them targets, SVHN labels; other classes must be iterated over.
        known = getattr(dataset, "targets", getattr(dataset, "labels", None))
        labels = [int(label) for label in ([y for _, y in dataset] if known is None else known)]
    return ImageRows(labels, read)
