"""Sizes of datasets before they are prepared: images, classes and bytes. Free of torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from foretune.core.entries import SourceSpec

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
        sizes[name] = get_dataset_size(name, entry, results / "datasets" / name)
        for shift, shifted_entry in entry.get("shifted", {}).items():
            folder = results / "datasets" / name / "shifted" / shift
            size = get_dataset_size(shift, shifted_entry, folder)
            # All images of a folder without a subfolder `test` are the test.
            undivided = (
                "folder" in shifted_entry and not Path(shifted_entry["folder"], "test").is_dir()
            )
            test = size.images if undivided else size.test
            sizes[f"{name}/{shift}"] = DatasetSize(0, 0, test, sizes[name].classes, size.basis)
    return sizes


def get_dataset_size(name: str, entry: SourceSpec, prepared: Path) -> DatasetSize:
    """Return the size from the prepared dataset if it exists, or else from the best source.

    That is the source's file or folder, the published size of a known dataset, or a guess.
    """
    if (prepared / "dataset.json").is_file():
        manifest = json.loads((prepared / "dataset.json").read_text())
        rows = {split: facts["rows"] for split, facts in manifest["splits"].items()}
        classes = len(manifest["classes"])
        return DatasetSize(
            rows.get("train", 0), rows.get("val", 0), rows["test"], classes, "as prepared"
        )
    if "parquet" in entry:
        import pyarrow.parquet as pq

        from foretune.core.parquet import read_metadata

        path = Path(entry["parquet"])
        splits = pq.read_table(path, columns=["split"])["split"].to_pylist()
        train, test = splits.count("train"), splits.count("test")
        return assume_split(train, test, len(read_metadata(path)["classes"]), "counted in the file")
    if "folder" in entry and Path(entry["folder"]).is_dir():
        return count_folder_images(Path(entry["folder"]))
    source = next((entry[kind] for kind in NAMED_KINDS if kind in entry), name)
    plain = source.lower().replace("-", "_")
    key = next((key for key in KNOWN_SIZES if key in plain or key in plain.replace("_", "")), None)
    if key:
        return assume_split(*KNOWN_SIZES[key], "published")
    return assume_split(*UNKNOWN_SIZE, f"unknown, assumed to be {UNKNOWN_SIZE[0]:,}")


def count_folder_images(folder: Path) -> DatasetSize:
    """Count the files of an image folder; a fifth is the test if there is no subfolder `test`."""

    def count_files(top: Path) -> int:
        return sum(1 for path in top.rglob("*") if path.is_file() and path.name[0] != ".")

    parts = [folder / "train", folder / "test"]
    divided = all(part.is_dir() for part in parts)
    top = parts[0] if divided else folder
    classes = sum(1 for path in top.iterdir() if path.is_dir())
    count = count_files(top)
    train, test = (count, count_files(parts[1])) if divided else (count - count // 5, count // 5)
    return assume_split(train, test, classes, "counted in the folder")


def get_image_bytes(entry: SourceSpec, size: DatasetSize, prepared: Path) -> float:
    """Return the bytes of a prepared dataset's files, which keep the original image files."""
    if (prepared / "dataset.json").is_file():
        return sum(path.stat().st_size for path in prepared.glob("*.parquet"))
    if "parquet" in entry:
        return Path(entry["parquet"]).stat().st_size
    if "folder" in entry:
        return sum(path.stat().st_size for path in Path(entry["folder"]).rglob("*"))
    if "torchvision" in entry:
        from foretune.data.sources.registry import get_known_source

        number, unit = get_known_source("torchvision", entry["torchvision"])["size"].split()
        return float(number) * {"MB": 1e6, "GB": 1e9}[unit]
    return IMAGE_BYTES * size.images


def assume_split(train: int, test: int, classes: int, basis: str) -> DatasetSize:
    """Return the size after validation images are split off, as `prepare_dataset` does it."""
    val = min(train // 10, 5000)
    return DatasetSize(train - val, val, test, classes, basis)
