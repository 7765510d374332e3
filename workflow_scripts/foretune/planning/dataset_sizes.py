"""How large datasets are before they are prepared: images, classes, bytes. Free of torch."""

import json
from dataclasses import dataclass
from pathlib import Path

# Images of public datasets: train, test, classes; found by a part of the source's name.
KNOWN_SIZES = {
    "imagenetv2": (0, 10_000, 1000), "imagenet_sketch": (0, 50_889, 1000),
    "imagenetr": (0, 30_000, 200), "imageneta": (0, 7_500, 200),
    "imagenet_r": (0, 30_000, 200), "imagenet_a": (0, 7_500, 200),
    "imagenet": (1_281_167, 50_000, 1000), "cars": (8_144, 8_041, 196),
    "cifar100": (50_000, 10_000, 100), "cifar10": (50_000, 10_000, 10),
    "dtd": (1_880, 1_880, 47), "eurosat": (21_600, 5_400, 10), "gtsrb": (26_640, 12_630, 43),
    "fashionmnist": (60_000, 10_000, 10), "mnist": (60_000, 10_000, 10),
    "resisc45": (25_200, 6_300, 45), "sun397": (87_003, 21_751, 397),
    "svhn": (73_257, 26_032, 10), "fmow": (76_863, 22_108, 62),
}  # fmt: skip
UNKNOWN_SIZE = (10_000, 2_000, 20)
PHOTOGRAPH = 110e3  # bytes of an image, ImageNet's mean, where the files do not lie here


@dataclass
class DatasetSize:
    """Of a dataset or shifted test: images a split, classes, and how that is known."""

    train: int
    val: int
    test: int
    classes: int
    basis: str


def get_dataset_sizes(study: dict, results: Path = Path("results")) -> dict[str, DatasetSize]:
    """Size of each dataset, and of each shifted test as `dataset/shift`."""
    sizes = {}
    for name, entry in (study["datasets"] | study["forecast"]["datasets"]).items():
        sizes[name] = get_dataset_size(name, entry, results / "datasets" / name)
        for shift, each in entry.get("shifted", {}).items():
            folder = results / "datasets" / name / "shifted" / shift
            size = get_dataset_size(shift, each, folder)
            # Of an undivided folder all images are the test.
            whole = "folder" in each and not Path(each["folder"], "test").is_dir()
            test = size.train + size.val + size.test if whole else size.test
            sizes[f"{name}/{shift}"] = DatasetSize(0, 0, test, sizes[name].classes, size.basis)
    return sizes


def get_dataset_size(name: str, entry: dict, prepared: Path) -> DatasetSize:
    if (prepared / "dataset.json").is_file():
        manifest = json.loads((prepared / "dataset.json").read_text())
        rows = {split: each["rows"] for split, each in manifest["splits"].items()}
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
        return assume_split(train, test, len(read_metadata(path)["classes"]), "counted in its file")
    if "folder" in entry and Path(entry["folder"]).is_dir():
        return count_folder_images(Path(entry["folder"]))
    kinds = ("torchvision", "webdataset", "huggingface", "table")
    said = next((str(entry[kind]) for kind in kinds if kind in entry), name)
    plain = said.lower().replace("-", "_")
    key = next((key for key in KNOWN_SIZES if key in plain or key in plain.replace("_", "")), None)
    if key:
        return assume_split(*KNOWN_SIZES[key], "its published size")
    return assume_split(*UNKNOWN_SIZE, f"not known, taken for {UNKNOWN_SIZE[0]:,} images")


def count_folder_images(folder: Path) -> DatasetSize:
    def images(top: Path) -> int:
        return sum(1 for path in top.rglob("*") if path.is_file() and path.name[0] != ".")

    parts = [folder / "train", folder / "test"]
    own = all(part.is_dir() for part in parts)
    top = parts[0] if own else folder
    classes = sum(1 for path in top.iterdir() if path.is_dir())
    n = images(top)
    train, test = (n, images(parts[1])) if own else (n - n // 5, n // 5)
    return assume_split(train, test, classes, "counted in its folder")


def get_image_bytes(entry: dict, size: DatasetSize, prepared: Path) -> float:
    """Of a prepared dataset's files, which keep the images as they came."""
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
    return PHOTOGRAPH * (size.train + size.val + size.test)


def assume_split(train: int, test: int, classes: int, basis: str) -> DatasetSize:
    val = min(train // 10, 5000)
    return DatasetSize(train - val, val, test, classes, basis)
