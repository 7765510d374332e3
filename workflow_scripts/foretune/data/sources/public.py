"""Public datasets as sources: torchvision's, WebDataset tars, Hugging Face datasets.

An entry's `root` is the folder that its files lie in; `make fetch` brings them (fetch.py), and
nothing is downloaded here.
"""

import inspect
import io
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from foretune.core.errors import ForetuneError
from foretune.data.sources.base import (
    DEFAULT_CAPTION,
    IMAGE_SUFFIXES,
    NOT_STATED,
    ImageRows,
    ImageSource,
    format_class_names,
)
from foretune.data.sources.registry import explain_dataset_fetch, get_known_source

CLASS_NAMES_FILE, TEMPLATES_FILE = "classnames.txt", "zeroshot_classification_templates.txt"


# A sample's members share the name up to the first dot.
SAMPLE_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)$")


def read_public_source(spec: dict, wanted: tuple[str, ...]) -> ImageSource:
    kind, reader = next(item for item in PUBLIC_READERS.items() if item[0] in spec)
    root = Path(spec["root"])
    if not root.is_dir():
        raise ForetuneError(f"{root}: no such folder; {explain_dataset_fetch(spec)}")
    found = reader(root, spec, wanted)
    facts = get_known_source("torchvision" if kind == "torchvision" else "hub", spec[kind])
    found.classes = facts.get("classes", found.classes)
    found.caption = facts.get("caption", found.caption)
    found.licence, found.source = facts.get("licence", NOT_STATED), f"{kind} {spec[kind]}"
    return found


def read_torchvision(root: Path, spec: dict, wanted: tuple[str, ...]) -> ImageSource:
    """A classification dataset of torchvision, in the files that torchvision has it in.

    Image files are kept as they are; what torchvision has as arrays becomes PNG. A dataset that
    torchvision does not divide is undivided here.
    """
    from torchvision import datasets

    kind = getattr(datasets, spec["torchvision"])
    accepted = inspect.signature(kind).parameters
    if "split" in accepted:
        arguments = {split: {"split": split} for split in wanted}
    elif "train" in accepted:
        arguments = {split: {"train": split == "train"} for split in wanted}
    else:
        arguments = {"all": {}}
    rows = {}
    for split, argument in arguments.items():
        try:
            dataset = kind(root, download=False, **argument)
        except Exception as error:  # torchvision raises many kinds, and asserts
            reason = re.sub(r"\.? You can use download=True.*", "", str(error))
            name = kind.__name__
            raise ForetuneError(
                f"{root}: {name}'s files are missing or broken ({reason}); {explain_dataset_fetch(spec)}"
            ) from None
        rows[split] = make_torchvision_rows(dataset, root, split)
    return ImageSource(
        format_class_names(getattr(dataset, "classes", [])), DEFAULT_CAPTION, NOT_STATED, "", rows
    )


def make_torchvision_rows(dataset, root: Path, split: str) -> ImageRows:
    if hasattr(dataset, "_image_files"):
        files = zip(dataset._image_files, dataset._labels, strict=True)
    else:
        files = getattr(dataset, "samples", getattr(dataset, "_samples", None))
    if files is not None:
        # In order: some are listed as the file system happens to have them.
        files = sorted((Path(file), int(label)) for file, label in files)

    def read() -> Iterator[tuple[str, bytes, int]]:
        for number in range(len(dataset)):
            if files is None:
                image, label = dataset[number]
                buffer = io.BytesIO()
                image.save(buffer, "PNG")
                yield f"{split}/{number:06d}", buffer.getvalue(), int(label)
                continue
            file, label = files[number]
            try:
                yield str(file.relative_to(root)), file.read_bytes(), label
            except OSError as error:
                raise ForetuneError(f"{file}: cannot be read ({error.strerror})") from None

    return ImageRows(len(dataset), read)


def read_webdataset(root: Path, spec: dict, wanted: tuple[str, ...]) -> ImageSource:
    """WebDataset tars: of each sample an image and `.cls`, its label; laid out as CLIP benchmark's.

    `classnames.txt` has a class a line, `zeroshot_classification_templates.txt` captions, of which
    the first is taken. A split's tars lie in a folder of its name, or where `splits` says: a
    folder, or a pattern with a star. `nshards.txt` beside them tells how many there are.
    """
    names = root / CLASS_NAMES_FILE
    if not names.is_file():
        raise ForetuneError(f"{names}: no such file; {explain_dataset_fetch(spec)}")
    seen: Counter[str] = Counter()
    classes = []
    for name in names.read_text().splitlines():
        seen[name] += 1  # ImageNet's names have two twice
        classes.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    templates = root / TEMPLATES_FILE
    caption = templates.read_text().splitlines()[0] if templates.is_file() else DEFAULT_CAPTION
    rows = {split: make_tar_rows(find_tars(root, spec, split)) for split in wanted}
    return ImageSource(classes, caption.replace("{c}", "{}"), NOT_STATED, "", rows)


def find_tars(root: Path, spec: dict, split: str) -> list[Path]:
    """A split's tars in their order. Raises ForetuneError where some are missing."""
    where = spec.get("splits", {}).get(split, split)
    pattern = where if "*" in where else f"{where}/*.tar"
    tars = sorted(root.glob(pattern), key=lambda path: (len(path.name), path.name))
    count = (root / pattern).parent / "nshards.txt"
    expected = int(count.read_text()) if count.is_file() and "*" not in where else len(tars)
    if not tars or len(tars) != expected:
        has = f"{len(tars)} of {expected or 'the'} tars"
        raise ForetuneError(f"{root / pattern}: {has}; {explain_dataset_fetch(spec)}")
    return tars


def make_tar_rows(tars: list[Path]) -> ImageRows:
    def read() -> Iterator[tuple[str, bytes, int]]:
        for path in tars:
            for key, file, member, label in iterate_samples(path):
                yield (
                    f"{path.parent.name}/{path.stem}/{key}",
                    file.extractfile(member).read(),
                    label,
                )

    # A pass over the headers, which also tells what is broken before anything is made of it.
    return ImageRows(sum(1 for path in tars for _ in iterate_samples(path)), read)


def iterate_samples(path: Path) -> Iterator[tuple[str, tarfile.TarFile, tarfile.TarInfo, int]]:
    """(key, tar, image's member, label) of a tar's samples, which are consecutive members.

    Raises ForetuneError for a tar that ends before its end, or a sample without image or label.
    """
    broken = f"{path}: half-written or broken"
    again = "delete it and fetch it again"
    try:
        with tarfile.open(path, "r:") as file:
            sample: dict[str, tarfile.TarInfo] = {}
            current = None
            for member in file:
                parts = SAMPLE_NAME.match(member.name)
                if not member.isfile() or not parts:
                    continue
                key, suffix = parts.groups()
                if key != current and sample:
                    yield parse_sample(path, file, current, sample)
                    sample = {}
                current = key
                sample[suffix.lower()] = member
            if sample:
                yield parse_sample(path, file, current, sample)
            # tarfile takes garbage, or nothing, for the end: look at what stands there.
            file.fileobj.seek(file.offset)
            if file.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise ForetuneError(f"{broken} (no end mark); {again}")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ForetuneError(f"{broken} ({error}); {again}") from None


def parse_sample(path: Path, file: tarfile.TarFile, key: str, sample: dict[str, tarfile.TarInfo]):
    image = next((m for suffix, m in sample.items() if f".{suffix}" in IMAGE_SUFFIXES), None)
    if image is None or "cls" not in sample:
        has = ", ".join(sample)
        raise ForetuneError(f"{path}: sample {key}: needs an image and .cls, has {has}")
    label = file.extractfile(sample["cls"]).read()
    if not label.strip().isdigit():
        raise ForetuneError(f"{path}: sample {key}: {label[:20]!r} is not a label")
    return key, file, image, int(label)


def read_huggingface(root: Path, spec: dict, wanted: tuple[str, ...]) -> ImageSource:
    """A dataset that Hugging Face's `datasets` reads from a folder, by that library.

    The folder is a hub's dataset repository (Parquet files or images) or what `save_to_disk`
    wrote. `subset` is the configuration's name, `splits` the library's names of the splits;
    `image` and `label` are columns, by default the first of images and of class labels.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the library would report its use
    try:
        import datasets
    except ImportError:
        raise ForetuneError(
            "Hugging Face's datasets are read by the package datasets: pip install datasets"
        ) from None
    rows, names = {}, None
    for split in wanted:
        name = spec.get("splits", {}).get(split, split)
        try:
            if (root / "dataset_dict.json").is_file():
                table = datasets.load_from_disk(str(root))[name]
            else:
                table = datasets.load_dataset(str(root), spec.get("subset"), split=name)
        except Exception as error:  # pyarrow's, fsspec's and the library's own
            raise ForetuneError(
                f"{root}: datasets cannot read split {name} ({error}); {explain_dataset_fetch(spec)}"
            ) from None
        image = find_huggingface_column(table, spec, "image", datasets.Image, root)
        label = find_huggingface_column(table, spec, "label", datasets.ClassLabel, root)
        feature = table.features[label]
        if isinstance(feature, datasets.ClassLabel):
            values, found = list(range(len(feature.names))), feature.names
        else:
            values = sorted(table.unique(label))
            found = [str(value) for value in values]
        names = names or found
        odd = [each for each in found if each not in names]
        if odd:
            raise ForetuneError(f"{root}: {name}: classes that {wanted[0]} does not have: {odd}")
        numbers = {v: names.index(f) for v, f in zip(values, found, strict=True)}
        encoded = table.cast_column(image, datasets.Image(decode=False))
        rows[split] = make_huggingface_rows(encoded.select_columns([image, label]), split, numbers)
    return ImageSource(format_class_names(names), DEFAULT_CAPTION, NOT_STATED, "", rows)


def find_huggingface_column(table, spec: dict, key: str, kind: type, root: Path) -> str:
    """The column that an entry names by `key`, or the first of a kind."""
    fitting = [name for name, feature in table.features.items() if isinstance(feature, kind)]
    name = spec.get(key) or next(iter(fitting), key)
    if name not in table.features:
        has = ", ".join(table.features)
        raise ForetuneError(f"{root}: has no column {name} (it has {has}); name it by `{key}:`")
    return name


def make_huggingface_rows(table, split: str, numbers: dict) -> ImageRows:
    """table: two columns, images as their encoded bytes or file, and labels."""
    image, label = table.column_names

    def read() -> Iterator[tuple[str, bytes, int]]:
        for number, row in enumerate(table):
            content = row[image]["bytes"] or Path(row[image]["path"]).read_bytes()
            yield f"{split}/{number:06d}", content, numbers.get(row[label], row[label])

    return ImageRows(len(table), read)


PUBLIC_READERS = {
    "torchvision": read_torchvision,
    "webdataset": read_webdataset,
    "huggingface": read_huggingface,
}
