"""Sizes of datasets before they are prepared: images, classes and bytes. Free of torch."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from foretune.core.entries import SourceSpec
from foretune.core.errors import ForetuneError
from foretune.core.files import read_json
from foretune.data.sources.layout import find_splits
from foretune.data.sources.listing import list_folder

# (train images, test images, classes) of public datasets, found by a part of the source's name.
# The first part that matches counts, so longer names come first.
KNOWN_SIZES = {
    "imagenetv2": (0, 10_000, 1000), "imagenet_sketch": (0, 50_889, 1000),
    "imagenetr": (0, 30_000, 200), "imageneta": (0, 7_500, 200),
    "imagenet_r": (0, 30_000, 200), "imagenet_a": (0, 7_500, 200),
    "imagenet": (1_281_167, 50_000, 1000), "cars": (8_144, 8_041, 196),
    "cifar100": (50_000, 10_000, 100), "cifar10": (50_000, 10_000, 10),
    "dtd": (1_880, 1_880, 47), "eurosat": (21_600, 5_400, 10), "gtsrb": (26_640, 12_630, 43),
    "fashionmnist": (60_000, 10_000, 10), "mnist": (60_000, 10_000, 10),
    "resisc45": (25_200, 6_300, 45), "sun397": (87_003, 21_751, 397),
    "svhn": (73_257, 26_032, 10), "fmow": (76_863, 22_108, 62), "fer2013": (28_709, 7_178, 7),
    "flowers": (1_020, 6_149, 102), "food101": (75_750, 25_250, 101),
    "pcam": (262_144, 32_768, 2), "pets": (3_680, 3_669, 37), "renderedsst2": (6_920, 1_821, 2),
    "stl10": (5_000, 8_000, 10),
}  # fmt: skip
UNKNOWN_SIZE = (10_000, 2_000, 20)
IMAGE_BYTES = 110e3  # mean of ImageNet's files, for datasets whose files are not on this machine
NAMED_KINDS: tuple[Literal["torchvision", "webdataset", "huggingface", "table"], ...] = (
    "torchvision", "webdataset", "huggingface", "table"
)  # fmt: skip


@dataclass
class DatasetSize:
    """Number of images per split and of classes, of a dataset or a shifted test.

    `basis` says where the numbers come from, for the reader of a plan.
    """

    train: int
    val: int
    test: int
    classes: int
    basis: str

    @property
    def images(self) -> int:
        return self.train + self.val + self.test


def get_dataset_sizes(study: dict, results: Path = Path("results")) -> dict[str, DatasetSize]:
    """Return the size of each dataset of a checked config, and of each `dataset/shifted test`."""
    sizes = {}
    for name, entry in (study["datasets"] | study["forecast"]["datasets"]).items():
        folder = results / "datasets" / name
        sizes[name] = size = get_dataset_size(name, entry, folder)
        if "class_half" in entry and not (folder / "dataset.json").is_file():
            sizes[name] = DatasetSize(
                size.train // 2, size.val // 2, size.test // 2, size.classes // 2, size.basis
            )
        for shift, shifted_entry in entry.get("shifted", {}).items():
            folder = results / "datasets" / name / "shifted" / shift
            size = get_dataset_size(shift, shifted_entry, folder)
            # All images of a folder without a subfolder `test` are the test.
            undivided = "folder" in shifted_entry and not has_test(Path(shifted_entry["folder"]))
            test = size.images if undivided else size.test
            sizes[f"{name}/{shift}"] = DatasetSize(0, 0, test, sizes[name].classes, size.basis)
    return sizes


def has_test(folder: Path) -> bool:
    """Return whether a folder has a subfolder of test images, so that a shifted test is that."""
    with suppress(ForetuneError):
        return folder.is_dir() and "test" in find_splits(folder)
    return False


def get_dataset_size(name: str, entry: SourceSpec, prepared: Path) -> DatasetSize:
    """Return the size from the prepared dataset if it exists, or else from the best source.

    That is the source's file or folder, the published size of a known dataset, or a guess.
    """
    if (prepared / "dataset.json").is_file():
        manifest = read_json(prepared / "dataset.json")
        rows = {split: facts["rows"] for split, facts in manifest["splits"].items()}
        classes = len(manifest["classes"])
        return DatasetSize(
            rows.get("train", 0), rows.get("val", 0), rows["test"], classes, "as prepared"
        )
    if "parquet" in entry:
        from foretune.core.parquet import read_metadata, read_table

        path = Path(entry["parquet"])
        splits = read_table(path, ["split"])["split"].to_pylist()
        train, test = splits.count("train"), splits.count("test")
        return assume_split(train, test, len(read_metadata(path)["classes"]), "counted in the file")
    if "folder" in entry and Path(entry["folder"]).is_dir():
        with suppress(ForetuneError):  # the job that prepares the dataset says what is wrong
            return count_folder_images(Path(entry["folder"]))
    source = next((entry[kind] for kind in NAMED_KINDS if kind in entry), name)
    plain = source.lower().replace("-", "_")
    key = next((key for key in KNOWN_SIZES if key in plain or key in plain.replace("_", "")), None)
    if key:
        return assume_split(*KNOWN_SIZES[key], "published")
    return assume_split(*UNKNOWN_SIZE, f"unknown, assumed to be {UNKNOWN_SIZE[0]:,}")


def count_folder_images(folder: Path) -> DatasetSize:
    """Count the images of a folder; a fifth is the test if there is no subfolder of tests."""
    splits = find_splits(folder)
    divided = {"train", "test"} <= splits.keys()
    top = splits["train"] if divided else folder
    images = list_folder(top).images
    classes, count = len({name.split("/")[0] for name in images if "/" in name}), len(images)
    if divided:
        train, test = count, len(list_folder(splits["test"]).images)
    else:
        train, test = count - count // 5, count // 5
    return assume_split(train, test, classes, "counted in the folder")


def get_image_bytes(entry: SourceSpec, size: DatasetSize, prepared: Path) -> float:
    """Return the bytes of a prepared dataset's files, which keep the original image files."""
    if (prepared / "dataset.json").is_file():
        return sum(path.stat().st_size for path in prepared.glob("*.parquet"))
    if "parquet" in entry:
        return Path(entry["parquet"]).stat().st_size
    if "folder" in entry:
        with suppress(ForetuneError):
            return sum(size for size, _ in list_folder(entry["folder"]).files.values())
    if "torchvision" in entry:
        from foretune.data.sources.registry import get_known_source

        number, unit = get_known_source("torchvision", entry["torchvision"])["size"].split()
        return float(number) * {"MB": 1e6, "GB": 1e9}[unit]
    return IMAGE_BYTES * size.images


def assume_split(train: int, test: int, classes: int, basis: str) -> DatasetSize:
    """Return the size after validation images are split off, as `prepare_dataset` does it."""
    val = min(train // 10, 5000)
    return DatasetSize(train - val, val, test, classes, basis)
