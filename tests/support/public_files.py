"""Write small copies of public datasets, in the files in which their publishers offer them."""

import csv
import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

RNG = np.random.default_rng(0)


def pixels(n: int, side: int, channels: int = 3) -> np.ndarray:
    """Return noise (n, side, side), or (n, side, side, channels) if there is more than one."""
    shape = (n, side, side) if channels == 1 else (n, side, side, channels)
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def encoded(kind: str = "JPEG") -> bytes:
    """Return an encoded image of noise, 24 x 24 pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels(1, 24)[0]).save(buffer, kind)
    return buffer.getvalue()


def put(path: Path, content: bytes) -> bytes:
    """Write a file and its folders; return the content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return content


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def repeat_labels(n: int, classes: int) -> list[int]:
    """Return the labels 0, 1, ... in turn, n in all."""
    return [i % classes for i in range(n)]


# Each of the following functions writes the files of a dataset to `root` and returns for each split
# (label, image) of every image: its pixels if the dataset stores arrays, otherwise its encoded
# bytes. `patch(object, name, value)` sets an attribute of torchvision's class, such as a checksum.


def cifar100(root: Path, patch) -> dict:
    from torchvision.datasets import CIFAR100

    folder, content = root / CIFAR100.base_folder, {}
    for split, n in (("train", 300), ("test", 100)):
        data, labels = pixels(n, 32), repeat_labels(n, 100)
        stored = {
            "data": data.transpose(0, 3, 1, 2).reshape(n, -1),
            "fine_labels": labels,
            "coarse_labels": [label // 5 for label in labels],
            "filenames": [f"{i}.png" for i in range(n)],
            "batch_label": f"{split}ing batch 1 of 1",
        }
        put(folder / split, pickle.dumps(stored))
        content[split] = list(zip(labels, data, strict=True))
    names = [f"class_{i:02}" for i in range(100)]
    put(folder / "meta", pickle.dumps({"fine_label_names": names, "coarse_label_names": []}))
    patch(CIFAR100, "train_list", [["train", md5(folder / "train")]])
    patch(CIFAR100, "test_list", [["test", md5(folder / "test")]])
    patch(CIFAR100, "meta", {**CIFAR100.meta, "md5": md5(folder / "meta")})
    return content


def mnist(root: Path, patch=None) -> dict:
    """Write the idx files, and next to them the archives that hold them."""
    folder, content = root / "MNIST/raw", {}
    for split, prefix, n in (("train", "train", 60), ("test", "t10k", 20)):
        data, labels = pixels(n, 28, 1), repeat_labels(n, 10)
        images = struct.pack(">IIII", 2051, n, 28, 28) + data.tobytes()
        numbers = struct.pack(">II", 2049, n) + bytes(labels)
        for name, raw in (("images-idx3", images), ("labels-idx1", numbers)):
            put(folder / f"{prefix}-{name}-ubyte", raw)
            put(folder / f"{prefix}-{name}-ubyte.gz", gzip.compress(raw, mtime=0))
        content[split] = list(zip(labels, data, strict=True))
    return content


def svhn(root: Path, patch) -> dict:
    from torchvision.datasets import SVHN

    content, known = {}, dict(SVHN.split_list)
    for split, n in (("train", 40), ("test", 20)):
        data, labels = pixels(n, 32), np.array(repeat_labels(n, 10))
        path = root / f"{split}_32x32.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]  # SVHN stores 0 as 10
        savemat(path, {"X": data.transpose(1, 2, 3, 0), "y": stored})
        known[split] = [known[split][0], path.name, md5(path)]
        content[split] = list(zip(labels.tolist(), data, strict=True))
    patch(SVHN, "split_list", known)
    return content


def dtd(root: Path, patch=None) -> dict:
    content, names = {}, ["banded", "blotchy", "braided"]
    for split, n in (("train", 30), ("val", 9), ("test", 12)):
        content[split], lines = [], []
        for i, label in enumerate(repeat_labels(n, 3)):
            name = f"{names[label]}/{names[label]}_{split}{i:04}.jpg"
            content[split].append((label, put(root / "dtd/dtd/images" / name, encoded())))
            lines.append(f"{name}\n")
        put(root / f"dtd/dtd/labels/{split}1.txt", "".join(lines).encode())
    return content


def gtsrb(root: Path, patch=None) -> dict:
    folder = root / "gtsrb"
    train, test = [], []
    for label in range(43):
        for i in range(2):
            path = folder / f"GTSRB/Training/{label:05}/00000_{i:05}.ppm"
            train.append((label, put(path, encoded("PPM"))))
        header = b"Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
        put(folder / f"GTSRB/Training/{label:05}/GT-{label:05}.csv", header)
    rows = []
    for i, label in enumerate(repeat_labels(60, 43)):
        content = put(folder / f"GTSRB/Final_Test/Images/{i:05}.ppm", encoded("PPM"))
        test.append((label, content))
        rows.append([f"{i:05}.ppm", 24, 24, 5, 5, 20, 20, label])
    with open(folder / "GT-final_test.csv", "w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        box = ["Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2"]
        writer.writerow(["Filename", "Width", "Height", *box, "ClassId"])
        writer.writerows(rows)
    return {"train": train, "test": test}


def eurosat(root: Path, patch=None) -> dict:
    names = ["AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture",
             "PermanentCrop", "Residential", "River", "SeaLake"]  # fmt: skip
    return {"all": [
        (label, put(root / f"eurosat/2750/{name}/{name}_{i}.jpg", encoded()))
        for label, name in enumerate(names)
        for i in range(1, 9)
    ]}  # fmt: skip


def sun397(root: Path, patch=None) -> dict:
    names = ["/a/abbey", "/a/airport_terminal", "/a/apartment_building/outdoor"]
    put(root / "SUN397/ClassName.txt", "".join(f"{name}\n" for name in names).encode())
    return {"all": [
        (label, put(root / f"SUN397{name}/sun_{label}{i:04}.jpg", encoded()))
        for label, name in enumerate(names)
        for i in range(15)
    ]}  # fmt: skip


def stanford_cars(root: Path, patch=None) -> dict:
    folder, content = root / "stanford_cars", {}
    names = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Acura TL Sedan 2012"]
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit/cars_meta.mat", {"class_names": np.array(names, object)})
    for split, n, path in (
        ("train", 30, "devkit/cars_train_annos.mat"),
        ("test", 12, "cars_test_annos_withlabels.mat"),
    ):
        kind = [(key, object) for key in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class")]
        annotations = np.zeros((1, n), [*kind, ("fname", object)])
        content[split] = []
        for i, label in enumerate(repeat_labels(n, 3)):
            annotations[0, i] = (1, 1, 20, 20, label + 1, f"{i:05}.jpg")
            image = put(folder / f"cars_{split}/{i:05}.jpg", encoded())
            content[split].append((label, image))
        savemat(folder / path, {"annotations": annotations})
    return content


def add_sample(tar: tarfile.TarFile, key: str, **members: bytes) -> None:
    """Add a sample of a webdataset: a file `{key}.{suffix}` for each of the members."""
    for suffix, content in members.items():
        member = tarfile.TarInfo(f"{key}.{suffix}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


def clip_benchmark(root: Path, names: list[str], counts: dict[str, int], shards: int = 2) -> dict:
    """Write a webdataset as CLIP benchmark's: tars, class names and caption templates.

    Each sample in a tar is an image and a .cls file. counts: number of images of each split.
    """
    content = {}
    put(root / "classnames.txt", "".join(f"{name}\n" for name in names).encode())
    templates = root / "zeroshot_classification_templates.txt"
    put(templates, b"a photo of a {c}.\na picture of a {c}.\n")
    for split, n in counts.items():
        content[split] = []
        (root / split).mkdir(parents=True, exist_ok=True)
        put(root / split / "nshards.txt", f"{shards}\n".encode())
        for shard, numbers in enumerate(np.array_split(range(n), shards)):
            with tarfile.open(root / split / f"{shard}.tar", "w") as tar:
                for i in numbers:
                    kind = ("jpg", "png", "webp")[i % 3]
                    image = encoded(kind.upper().replace("JPG", "JPEG"))
                    label = int(i) % len(names)
                    add_sample(tar, f"s{i:07}", **{kind: image, "cls": str(label).encode()})
                    content[split].append((label, image))
    return content
