"""Read WebDataset tars in the layout of the CLIP benchmark's datasets on the hub."""

import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from foretune.core.entries import SourceSpec
from foretune.core.errors import ForetuneError
from foretune.data.sources.base import (
    DEFAULT_CAPTION,
    IMAGE_SUFFIXES,
    NOT_STATED,
    ImageRow,
    ImageRows,
    ImageSource,
)
from foretune.data.sources.registry import explain_dataset_fetch

CLASS_NAMES_FILE, TEMPLATES_FILE = "classnames.txt", "zeroshot_classification_templates.txt"
# The files of a sample have the same name up to the first dot.
SAMPLE_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)$")


def read_webdataset(root: Path, spec: SourceSpec, wanted: tuple[str, ...]) -> ImageSource:
    """Read a dataset of WebDataset tars.

    Each sample has an image and `.cls`, its label. `classnames.txt` has one class per line.
    The first line of `zeroshot_classification_templates.txt` is the caption. The tars of a split
    lie in a folder of its name, or in the place that `splits` names: a folder, or a pattern with a
    star. `nshards.txt` in that folder has their number.
    """
    names_file = root / CLASS_NAMES_FILE
    if not names_file.is_file():
        raise ForetuneError(f"{names_file}: no such file; {explain_dataset_fetch(spec)}")
    counts: Counter[str] = Counter()
    classes = []
    for number, name in enumerate(read_lines(names_file), start=1):
        if not name:
            raise ForetuneError(f"{names_file}: line {number} is blank, and needs a class name")
        counts[name] += 1  # two of ImageNet's names occur twice
        classes.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    left_out: Counter[str] = Counter()
    rows = {split: make_tar_rows(find_tars(root, spec, split), left_out) for split in wanted}
    caption = read_caption(root / TEMPLATES_FILE)
    return ImageSource(classes, caption, NOT_STATED, "", rows, left_out)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file without blanks at their ends, and without blank last lines.

    Raises:
        ForetuneError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, ValueError) as error:
        raise ForetuneError(f"{path}: not a readable text ({error})") from None
    return [line.strip() for line in lines]


def read_caption(path: Path) -> str:
    """Return the first template of a file, with {} for the class name; the default without a file.

    Raises:
        ForetuneError: the file cannot be read, or its first line has no {c}.
    """
    if not path.is_file():
        return DEFAULT_CAPTION
    caption = next((line for line in read_lines(path) if line), "").replace("{c}", "{}")
    if "{}" not in caption:
        raise ForetuneError(f"{path}: the first template has no {{c}} for the class: {caption!r}")
    return caption


def find_tars(root: Path, spec: SourceSpec, split: str) -> list[Path]:
    """Return a split's tars in the order of their numbers.

    Raises:
        ForetuneError: tars are missing.
    """
    place = spec.get("splits", {}).get(split, split)
    pattern = place if "*" in place else f"{place}/*.tar"
    tars = sorted(root.glob(pattern), key=lambda path: (len(path.name), path.name))
    count_file = (root / pattern).parent / "nshards.txt"
    expected = len(tars)
    if count_file.is_file() and "*" not in place:
        text = "".join(read_lines(count_file))
        if not (text.isascii() and text.isdigit()):
            raise ForetuneError(f"{count_file}: {text[:40]!r} is not a number of tars")
        expected = int(text[:18])
    if not tars or len(tars) != expected:
        raise ForetuneError(
            f"{root / pattern}: {len(tars)} of {expected or 'the'} tars; "
            f"{explain_dataset_fetch(spec)}"
        )
    return tars


def make_tar_rows(tars: list[Path], left_out: Counter[str]) -> ImageRows:
    """Return the rows of a split's tars. All headers are read at once, which finds broken tars.

    left_out: what is no sample is added to it, by reason.
    """

    def read() -> Iterator[ImageRow]:
        for path in tars:
            for key, tar, member, label in iterate_samples(path, Counter()):
                name = f"{path.parent.name}/{path.stem}/{key}"
                yield ImageRow(name, read_member(tar, member), label)

    labels = [sample[-1] for path in tars for sample in iterate_samples(path, left_out)]
    return ImageRows(labels, read)


def iterate_samples(
    path: Path, left_out: Counter[str]
) -> Iterator[tuple[str, tarfile.TarFile, tarfile.TarInfo, int]]:
    """Yield (key, tar, member of the image, label) of a tar's samples.

    The members of a sample follow each other in the tar.

    Args:
        left_out: what is no sample is added to it, by reason.

    Raises:
        ForetuneError: the tar is incomplete, or a sample has no image or no label.
    """
    broken = f"{path}: half-written or broken"
    remedy = "delete it and fetch it again"
    try:
        with tarfile.open(path, "r:") as tar:
            sample: dict[str, tarfile.TarInfo] = {}
            sample_key = ""
            for member in tar:
                if member.size < 0:  # tarfile would go back by it, without end
                    raise tarfile.ReadError("a negative size")
                name = SAMPLE_NAME.match(member.name)
                if reason := get_reason_to_skip_member(member, bool(name)):
                    left_out[reason] += 1
                if not member.isreg() or member.sparse or not name:
                    continue
                key, suffix = name.groups()
                # A file that the sample has already begins another sample of the same key.
                if (key != sample_key or suffix.lower() in sample) and sample:
                    yield parse_sample(path, tar, sample_key, sample, left_out)
                    sample = {}
                sample_key = key
                sample[suffix.lower()] = member
            if sample:
                yield parse_sample(path, tar, sample_key, sample, left_out)
            # tarfile takes garbage, or the end of the file, for the end mark: look for the mark.
            assert tar.fileobj is not None
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise ForetuneError(f"{broken} (no end mark); {remedy}")
    except ForetuneError:
        raise
    except Exception as error:  # tarfile raises many kinds
        raise ForetuneError(f"{broken} ({error or type(error).__name__}); {remedy}") from None


def get_reason_to_skip_member(member: tarfile.TarInfo, named: bool) -> str | None:
    """Return why a member of a tar is left out, or None if it belongs to a sample or is a folder.

    named: whether its name is that of a file of a sample.
    """
    if member.isdir():
        return None
    if member.name.split("/")[-1].startswith("."):
        return "hidden files"
    if not member.isreg() or member.sparse:
        return "links and devices in tars"
    return None if named else "no suffix"


def parse_sample(
    path: Path,
    tar: tarfile.TarFile,
    key: str,
    sample: dict[str, tarfile.TarInfo],
    left_out: Counter[str],
) -> tuple[str, tarfile.TarFile, tarfile.TarInfo, int]:
    """Return what `iterate_samples` yields for a sample, given its members by suffix."""
    images = [member for suffix, member in sample.items() if f".{suffix}" in IMAGE_SUFFIXES]
    if not images or "cls" not in sample:
        suffixes = ", ".join(sample)
        raise ForetuneError(f"{path}: sample {key}: needs an image and .cls, has {suffixes}")
    if len(images) > 1:
        left_out["further images of a sample"] += len(images) - 1
    label = read_member(tar, sample["cls"])
    if not label.strip().isdigit() or len(label) > 20:
        raise ForetuneError(f"{path}: sample {key}: {label[:20]!r} is not a label")
    return key, tar, images[0], int(label)


def read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Return the content of a regular file in a tar."""
    file = tar.extractfile(member)
    assert file is not None
    return file.read()
