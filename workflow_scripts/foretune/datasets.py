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
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from foretune.files import ForetuneError, digest_json, write_json
from foretune.tables import read_metadata, write_parquet

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
SPLITS = ("train", "val", "test")
SCHEMA = pa.schema([("id", pa.string()), ("image", pa.binary()), ("label", pa.int32())])


@dataclass
class Source:
    """What a source gives: rows `(id, image bytes, label)` for train and test, and its facts.

    pool: what the test is drawn from, which is the test itself, or all rows of an undivided folder.
    """

    classes: list[str]
    caption: str
    licence: str
    source: str
    rows: dict[str, list[tuple[str, bytes, int]]]
    pool: list[tuple[str, bytes, int]]


def read_parquet_source(path: Path) -> Source:
    """A Parquet file with the columns image, label and split, and its facts as metadata."""
    facts, table = read_metadata(path), pq.read_table(path)
    absent = [key for key in ("classes", "caption", "licence", "source") if key not in facts]
    absent += [name for name in ("image", "label", "split") if name not in table.column_names]
    if absent:
        raise ForetuneError(f"{path}: not a dataset: it lacks {', '.join(absent)}")
    rows: dict[str, list] = {"train": [], "test": []}
    for number, row in enumerate(table.to_pylist()):
        if row["split"] not in rows:
            raise ForetuneError(
                f"{path}: row {number}: split {row['split']!r} is not train or test"
            )
        rows[row["split"]].append((f"{number:06d}", row["image"], row["label"]))
    described = (facts[key] for key in ("classes", "caption", "licence", "source"))
    return Source(*described, rows, rows["test"])


def read_folder_source(folder: Path, seed: int) -> Source:
    """A folder with one subfolder a class, or with `train/` and `test/` that have them.

    Without a `test/` of its own, a fifth of the images (at random, by `seed`) becomes the test.
    """
    if not folder.is_dir():
        raise ForetuneError(f"{folder}: no such folder")
    own_test = (folder / "test").is_dir()
    if (folder / "train").is_dir() and not own_test:
        raise ForetuneError(f"{folder}: has train/ but no test/; without both, give class folders")
    if own_test and (folder / "val").is_dir():
        print(f"{folder}: val/ is not used; validation is a tenth of train/", flush=True)
    top = folder / "train" if own_test else folder
    classes = class_folders(top)
    if len(classes) < 2:
        raise ForetuneError(f"{top}: needs one subfolder a class, at least two; found {classes}")

    def rows_of(root: Path) -> list[tuple[str, bytes, int]]:
        unknown = set(class_folders(root)) - set(classes)
        if unknown:
            raise ForetuneError(f"{root}: classes that {top} does not have: {sorted(unknown)}")
        return [
            (str(file.relative_to(folder)), file.read_bytes(), label)
            for label, name in enumerate(classes)
            for file in sorted((root / name).rglob("*"))
            if file.suffix.lower() in IMAGE_SUFFIXES
            and file.is_file()
            and not file.name.startswith(".")
        ]

    if own_test:
        rows = {"train": rows_of(folder / "train"), "test": rows_of(folder / "test")}
        pool = rows["test"]
    else:
        pool = rows_of(folder)
        held_out, kept = split_off(len(pool), len(pool) // 5, seed)
        rows = {"train": [pool[i] for i in kept], "test": [pool[i] for i in held_out]}
    # Class folders are commonly written with underscores; captions are not.
    nouns = [name.replace("_", " ") for name in classes]
    return Source(nouns, "a photo of a {}", "not stated", f"folder {folder}", rows, pool)


def class_folders(folder: Path) -> list[str]:
    """The visible subfolders' names, in order. Raises ForetuneError where one is not UTF-8."""
    if not folder.is_dir():
        raise ForetuneError(f"{folder}: no such folder")
    paths = [*folder.rglob("*")]
    for path in paths:
        if not str(path).isprintable():
            raise ForetuneError(f"{str(path)!r}: rename it; its name has unprintable characters")
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def split_off(total: int, part: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`part` row numbers taken at random, and the others, both in order."""
    order = np.random.default_rng(seed).permutation(total)
    return np.sort(order[:part]), np.sort(order[part:])


def prepare_dataset(name: str, spec: dict, output: Path, seed: int) -> dict:
    """Write the splits of a dataset and its manifest to the folder `output`; the manifest.

    spec: `{"parquet": path}` or `{"folder": path}`, and optionally `classes` (new names, in
    label order). Validation is a random 10% of train, at most 5000 images, by `seed` (the
    first paper's split).
    Raises ForetuneError for a broken image, a label out of range, or an empty split or class.
    """
    if "parquet" in spec:
        source = read_parquet_source(Path(spec["parquet"]))
    else:
        source = read_folder_source(Path(spec["folder"]), seed)
    classes = spec.get("classes", source.classes)
    if len(classes) != len(source.classes):
        raise ForetuneError(
            f"datasets.{name}.classes: {len(classes)} names for {len(source.classes)} classes"
        )
    twice = sorted({name for name in classes if classes.count(name) > 1})
    if twice:
        raise ForetuneError(f"dataset {name}: two classes have the same name: {twice}")
    train = source.rows["train"]
    held_out, kept = split_off(len(train), min(len(train) // 10, 5000), seed)
    rows = {
        "train": [train[i] for i in kept],
        "val": [train[i] for i in held_out],
        "test": source.rows["test"],
    }
    for split in SPLITS:
        check_rows(name, split, rows[split], classes)
    manifest = {
        "name": name,
        "split": "test",
        "classes": classes,
        "source_classes": source.classes,
        "caption": source.caption,
        "licence": source.licence,
        "source": source.source,
    }
    return write_dataset(manifest, rows, source.pool, output)


def prepare_shifted_test(shift: str, spec: dict, parent: Path, output: Path) -> dict:
    """Write a test with the classes of the dataset in the folder `parent`; its manifest.

    spec: `{"parquet": path}`, of which only the test rows are taken, or `{"folder": path}`, of
    which `test/` is taken, or all that is in its class folders. Classes are matched by the names
    that they have in the sources. There may be fewer of them than the parent has: predictions are
    over all of the parent's.
    Raises ForetuneError for a class that the parent lacks, and as `prepare_dataset` does.
    """
    dataset = read_manifest(parent)
    name, known = dataset["name"], dataset["source_classes"]
    if "parquet" in spec:
        source = read_parquet_source(Path(spec["parquet"]))
    else:
        folder = Path(spec["folder"])
        own_test = (folder / "test").is_dir()
        source = read_folder_source(folder / "test" if own_test else folder, seed=0)
    unknown = [each for each in source.classes if each not in known]
    if unknown:
        raise ForetuneError(
            f"datasets.{name}.shifted.{shift}: classes that {name} does not have: {unknown}; "
            f"rename them or leave them out ({name} has {', '.join(known[:5])}, ...)"
        )
    check_rows(name, shift, source.pool, source.classes)
    labels = [known.index(each) for each in source.classes]
    test = [(identity, image, labels[label]) for identity, image, label in source.pool]
    manifest = {
        **{key: dataset[key] for key in ("name", "classes", "source_classes", "caption")},
        "split": shift,
        "parent": dataset["digest"],
        "licence": source.licence,
        "source": source.source,
    }
    return write_dataset(manifest, {"test": test}, test, output)


def write_dataset(manifest: dict, rows: dict[str, list], pool: list, output: Path) -> dict:
    """Write the rows of each split and the manifest, to which digests and splits are added.

    `test_digest` is of the images that the test is drawn from (`pool`) and the names of their
    classes, whatever their order, so that the same test under two names is known for one.
    """
    classes = manifest["source_classes"]
    digest = hashlib.sha256(json.dumps([manifest["classes"], classes]).encode())
    for split in rows:
        for row in rows[split]:
            digest.update(f"{split}\0{row[0]}\0{row[2]}\0{len(row[1])}\0".encode() + row[1])
    images = [hashlib.sha256(classes[row[2]].encode() + b"\0" + row[1]).hexdigest() for row in pool]
    manifest |= {
        "digest": digest.hexdigest(),
        "test_digest": digest_json(sorted(images)),
        "splits": {s: {"file": f"{s}.parquet", "rows": len(rows[s])} for s in rows},
    }
    for split in rows:
        table = pa.table([list(column) for column in zip(*rows[split], strict=True)], schema=SCHEMA)
        provenance = {"dataset": manifest["name"], "split": split, "digest": manifest["digest"]}
        write_parquet(table, output / f"{split}.parquet", provenance, row_group_size=4096)
    write_json(manifest, output / "dataset.json")
    return manifest


def check_rows(name: str, split: str, rows: Iterable[tuple[str, bytes, int]], classes) -> None:
    """Refuse what would fail, or silently mislead, hours later."""
    seen = set()
    for identity, image, label in rows:
        if not isinstance(label, int) or not 0 <= label < len(classes):
            raise ForetuneError(
                f"dataset {name}, {split}, {identity}: "
                f"label {label} is not in 0..{len(classes) - 1}"
            )
        decode(image, f"dataset {name}, {split}, {identity}")
        seen.add(label)
    if not seen:
        hint = "; a tenth of train is taken, so give at least 10 images" if split == "val" else ""
        raise ForetuneError(f"dataset {name}: no images in its {split} split{hint}")
    missing = [classes[label] for label in range(len(classes)) if label not in seen]
    if missing and split == "train":
        raise ForetuneError(f"dataset {name}: no training image of {missing}")


def read_manifest(folder: Path | str) -> dict:
    return json.loads((Path(folder) / "dataset.json").read_text())


def title_of(manifest: dict) -> str:
    """What a reader sees as a dataset's name: a shifted test's own comes after its dataset's."""
    shift = manifest["split"]
    return manifest["name"] if shift == "test" else f"{manifest['name']} · {shift}"


def read_split(folder: Path | str, split: str, columns: list[str] | None = None) -> pa.Table:
    """The rows of one split, all columns or some.

    Raises ForetuneError for a file that does not belong to the folder's manifest.
    """
    path = Path(folder) / f"{split}.parquet"
    if read_metadata(path)["digest"] != read_manifest(folder)["digest"]:
        raise ForetuneError(f"{path}: belongs to another version of the dataset; delete {folder}")
    return pq.read_table(path, columns=columns)


def decode(encoded: bytes, name: str) -> Image.Image:
    """The picture of one row in full; `name` says which in the error."""
    try:
        image = Image.open(io.BytesIO(encoded))
        image.load()
    except Exception as error:  # PIL raises many kinds, all of them mean the same here
        raise ForetuneError(f"{name}: not a readable image ({error})") from None
    if image.mode.startswith(("I", "F")):
        raise ForetuneError(f"{name}: more than 8 bits a channel ({image.mode}); convert it first")
    return image
