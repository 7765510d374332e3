"""The readers of images and datasets that tests/fuzz.py feeds: valid files, and right results."""

import csv
import io
import json
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

import fuzz_values
import public_files
from checkout import ROOT
from foretune.core.config import check_config
from foretune.core.outcomes_file import read_outcomes
from foretune.core.parquet import write_parquet
from foretune.data.notes import read_notes
from foretune.data.prepare import prepare_dataset
from foretune.data.prepared import SPLITS, decode_image, read_split
from foretune.encoders.preprocess import Preprocess
from foretune.report.thumbnails import make_data_uri

Seeds = Iterable[tuple[str, bytes]]
torch.set_num_threads(1)
MODEL = open_clip.model.CLIP(
    8, {"image_size": 8, "patch_size": 4, "width": 8, "layers": 1, "head_width": 8},
    {"context_length": 8, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1},
)  # fmt: skip
MODEL.visual.preprocess_cfg = {"size": 8}
PREPROCESS = Preprocess(MODEL)


class Reader(NamedTuple):
    """make: writes valid files and returns seeds (file, content). read: reads them once.

    mend: gives changed content right checksums. values: hypothesis' strategy of (file, content).
    """

    make: Callable[[Path], Seeds]
    read: Callable[[Path], object]
    mend: Callable[[bytes], bytes] | None = None
    values: Callable | None = None


def get_seeds(folder: Path, *patterns: str) -> Seeds:
    """Return the files of a folder that match the patterns as they are."""
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in paths]


def prepare(folder: Path, spec: dict, n: int) -> list[dict]:
    """Prepare a dataset, each of whose n images is written or left out; return its rows."""
    manifest = prepare_dataset("it", spec, folder / "out", seed=0)
    rows = [row for split in SPLITS for row in read_split(folder / "out", split).to_pylist()]
    notes = read_notes(folder / "out")
    left_out = json.loads((folder / "out/notes.json").read_text())["left_out"]
    assert len(rows) + sum(left_out.values()) == n, (len(rows), left_out, n)
    assert len({row["id"] for row in rows}) == n or notes
    assert all(0 <= row["label"] < len(manifest["classes"]) for row in rows)
    return rows


# ---- images ----

SMALL = [public_files.encoded("PNG") for _ in range(12)]


def make_images(folder: Path) -> Seeds:
    for number, content in enumerate(SMALL):
        public_files.put(folder / f"images/{'ab'[number % 2]}/{number}.png", content)
    public_files.put(folder / "images/a/x.png", SMALL[0])
    noise = Image.fromarray(public_files.pixels(1, 12)[0])
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds: list[tuple[str, str, dict]] = [
        *(("PNG", mode, {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
        *(("JPEG", mode, {"exif": turned}) for mode in ("RGB", "L", "CMYK")),
        *(("TIFF", mode, {}) for mode in ("RGB", "LAB", "CMYK", "YCbCr", "P", "F", "1")),
        *(("TIFF", "RGB", {"compression": name}) for name in ("tiff_lzw", "jpeg", "tiff_deflate")),
        ("GIF", "P", {"save_all": True, "append_images": [noise.convert("P")]}),
        *((name, "RGB", {}) for name in ("WEBP", "BMP", "PPM", "TGA", "PCX", "SGI", "JPEG2000",
                                         "AVIF", "ICO", "MPO", "DDS", "EPS", "DIB", "QOI")),
    ]  # fmt: skip
    for name, mode, options in kinds:
        buffer = io.BytesIO()
        middle = noise.convert("L" if mode == "I;16" else "RGB" if mode == "LAB" else mode)
        image = Image.new("LAB", (12, 12), (90, 30, 200)) if mode == "LAB" else middle
        image = Image.new("I;16", (12, 12), 9) if mode == "I;16" else image
        image.save(buffer, name, **options)
        yield "images/a/x.png", buffer.getvalue()


def read_images(folder: Path) -> None:
    for row in prepare(folder, {"folder": str(folder / "images")}, 13):
        if row["id"] == "a/x.png":
            PREPROCESS(decode_image(row["image"], row["id"]))
            make_data_uri(row["image"], row["id"])


def mend_png(content: bytes) -> bytes:
    """Return a PNG with right checksums of its chunks."""
    fixed, start = bytearray(content), 8
    while start + 12 <= len(fixed) and content[1:4] == b"PNG":
        end = start + 8 + int.from_bytes(fixed[start : start + 4], "big")
        fixed[end : end + 4] = struct.pack(">I", zlib.crc32(fixed[start + 4 : end]))
        start = end + 4
    return bytes(fixed[: len(content)])


# ---- datasets ----


def make_parquet(folder: Path) -> Seeds:
    table = pa.table({
        "image": pa.array(SMALL * 4), "label": pa.array([0, 1] * 24, pa.int32()),
        "split": ["train"] * 36 + ["test"] * 12, "group": ["a", None, "b"] * 16,
    })  # fmt: skip
    facts = {"classes": ["x", "y"], "caption": "a {}", "licence": "MIT", "source": "here"}
    for compression in ("none", "zstd", "snappy"):
        write_parquet(table, folder / "it.parquet", facts, 20, compression, compression != "none")
        yield from get_seeds(folder, "it.parquet")


def read_parquet(folder: Path) -> None:
    path = folder / "it.parquet"
    try:
        n = pq.read_table(path, columns=["split"]).num_rows
    except Exception:  # foretune says so
        n = -1
    prepare(folder, {"parquet": str(path)}, n)


def make_tars(folder: Path) -> Seeds:
    public_files.clip_benchmark(folder / "tars", ["crow", "jay"], {"train": 20, "test": 4})
    path = folder / "tars/test/1.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        public_files.add_sample(tar, "é" * 60, png=SMALL[0], cls=b"1")
        public_files.add_sample(tar, "n" * 120, png=SMALL[1], cls=b"0")
    yield from get_seeds(folder, "tars/test/*.tar", "tars/test/nshards.txt", "tars/*.txt")
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        public_files.add_sample(tar, "n" * 120, png=SMALL[1], cls=b"0")
        link = tarfile.TarInfo("m.png")
        link.type, link.linkname = tarfile.LNKTYPE, "n" * 120 + ".png"
        tar.addfile(link)
        public_files.add_sample(tar, "o", png=SMALL[1], cls=b"0")
    yield from get_seeds(folder, "tars/test/1.tar")


def read_tars(folder: Path) -> None:
    n = 20
    for path in sorted(folder.glob("tars/test/*.tar")):
        try:
            with tarfile.open(path, "r:") as tar:
                names = [member.name.lower() for member in tar if not member.isdir()]
            n += sum(name.endswith((".jpg", ".png", ".webp")) for name in names)
            n += sum(not name.endswith((".jpg", ".png", ".webp", ".cls")) for name in names)
        except Exception:  # foretune says so
            n = -1
    root = str(folder / "tars")
    prepare(folder, {"webdataset": root, "root": root}, n)


def mend_tar(content: bytes) -> bytes:
    """Return a tar with right checksums of its headers."""
    fixed = bytearray(content)
    for start in range(0, len(fixed) - 511, 512):
        if fixed[start + 257 : start + 262] == b"ustar":
            fixed[start + 148 : start + 156] = b" " * 8
            total = sum(fixed[start : start + 512])
            fixed[start + 148 : start + 156] = b"%06o\0 " % (total % 8**6)
    return bytes(fixed)


def make_table(folder: Path) -> Seeds:
    lines, groups = ["file,number,label,split"], ["file,group"]
    for number, content in enumerate(SMALL * 4):
        name = f"images/{'ab'[number % 2]}/{number}.png"
        public_files.put(folder / name, content)
        lines.append(f"{name},{number},{'ab'[number % 2]},{'train' if number < 32 else 'test'}")
        groups.append(f"{name.removeprefix('images/')},g{number // 2}")
    public_files.put(folder / "table.csv", "\n".join(lines).encode())
    public_files.put(folder / "images/groups.csv", "\n".join(groups).encode())
    shutil.copy(ROOT / "resources/public/outcomes.csv", folder)
    entry = {"image": "{file}", "label": "label",
             "splits": {"train": "split == 'train'", "test": "number >= 32"}}  # fmt: skip
    (folder / "entry.json").write_text(json.dumps(entry))
    return get_seeds(folder, "*.csv", "images/*.csv", "entry.json")


def read_table(folder: Path) -> None:
    read_outcomes(folder / "outcomes.csv")
    prepare(folder, {"folder": str(folder / "images")}, 48)
    try:
        entry = json.loads((folder / "entry.json").read_text())
    except ValueError:
        return
    study = {"models": {"clip": {"folder": "resources/mini/clip"}},
             "datasets": {"it": entry}, "methods": {"full": {"learning_rate": [0.1]}}}  # fmt: skip
    if isinstance(entry, dict):
        entry["table"] = str(folder / "table.csv")
    spec = check_config(study)["datasets"]["it"]
    try:
        with open(folder / "table.csv", newline="", encoding="utf-8-sig") as file:
            n = sum(any(row) for row in csv.reader(file)) - 1
    except (ValueError, csv.Error):
        n = -1
    try:
        prepare(folder, spec, n)
    except AssertionError:  # rows that are in train and in test are written twice
        if "train and in test" not in str(read_notes(folder / "out")):
            raise


def make_saved(folder: Path) -> Seeds:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(
        names=["a", "b"]), "place": datasets.Value("string")})  # fmt: skip
    images = [{"bytes": content, "path": None} for content in SMALL * 4]
    columns = {"image": images, "label": [0, 1] * 24,
               "place": [f"p{number // 2}" for number in range(48)]}  # fmt: skip
    datasets.Dataset.from_dict(columns, features).save_to_disk(folder / "saved")
    return get_seeds(folder, "saved/*")


def read_saved(folder: Path) -> None:
    root = str(folder / "saved")
    prepare(folder, {"huggingface": root, "root": root, "group": "place"}, 48)


def make_hub(folder: Path) -> Seeds:
    import datasets

    make_saved(folder)
    table = datasets.load_from_disk(str(folder / "saved"))
    for split in ("train", "test"):
        (folder / "hub/data").mkdir(parents=True, exist_ok=True)
        table.to_parquet(folder / f"hub/data/{split}-00000-of-00001.parquet")
    shutil.rmtree(folder / "saved")
    (folder / "hub/README.md").write_text("---\nlicense: mit\n---\n# it\n")
    return get_seeds(folder, "hub/data/test*", "hub/README.md")


def read_hub(folder: Path) -> None:
    import datasets

    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    root = str(folder / "hub")
    prepare(folder, {"huggingface": root, "root": root}, 96)


DATA_READERS = {
    "image": Reader(make_images, read_images, mend_png),
    "parquet": Reader(make_parquet, read_parquet, values=fuzz_values.make_tables),
    "tar": Reader(make_tars, read_tars, mend_tar),
    "table": Reader(make_table, read_table, values=fuzz_values.make_csv),
    "saved": Reader(make_saved, read_saved),
    "hub": Reader(make_hub, read_hub),
}
