"""Public datasets, read by their libraries from small files in the published form."""

import io
import json
import subprocess
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

import public_files
from checkout import ROOT
from foretune.core.config import check_config
from foretune.core.errors import ForetuneError
from foretune.data.notes import read_notes
from foretune.data.prepare import prepare_dataset, prepare_shifted_test
from foretune.data.prepared import read_split
from foretune.data.sources.registry import REGISTRY


def has_image(row: dict, image) -> bool:
    """Return whether a row has these encoded bytes, or, as PNG, these pixels."""
    if isinstance(image, bytes):
        return row["image"] == image
    picture = Image.open(io.BytesIO(row["image"]))
    return picture.format == "PNG" and np.array_equal(np.array(picture), image)


def read_rows(folder, *splits) -> list[dict]:
    return [row for split in splits for row in read_split(folder, split).to_pylist()]


def get_bytes(image) -> bytes:
    return image if isinstance(image, bytes) else image.tobytes()


TORCHVISION = {
    "CIFAR100": (public_files.cifar100, "class 07", "a photo of a {}"),
    "DTD": (public_files.dtd, "blotchy", "a photo of a {} texture"),
    "EuroSAT": (public_files.eurosat, "sea or lake", "a centered satellite photo of a {}"),
    "GTSRB": (public_files.gtsrb, "roundabout", 'a photo of a "{}" traffic sign'),
    "MNIST": (public_files.mnist, "7", 'a photo of the number: "{}"'),
    "StanfordCars": (public_files.stanford_cars, "Acura RL Sedan 2012", "a photo of a {}"),
    "SUN397": (public_files.sun397, "apartment building outdoor", "a photo of a {}"),
    "SVHN": (public_files.svhn, "0", 'a photo of the number: "{}"'),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_prepare_dataset_reads_torchvision(name, tmp_path, monkeypatch):
    make, class_name, caption = TORCHVISION[name]
    images = make(tmp_path / "root", monkeypatch.setattr)
    spec = {"torchvision": name, "root": str(tmp_path / "root")}
    manifest = prepare_dataset("it", spec, tmp_path / "out", seed=0)
    assert class_name in manifest["classes"] and manifest["caption"] == caption
    assert manifest["licence"] and manifest["source"] == f"torchvision {name}"
    counts = {split: entry["rows"] for split, entry in manifest["splits"].items()}
    rows = read_rows(tmp_path / "out", "train", "val", "test")
    if "all" in images:  # not divided: a fifth is the test
        assert counts["test"] == len(images["all"]) // 5
        images = images["all"]
    else:
        assert counts["val"] == len(images["train"]) // 10
        assert counts["test"] == len(images["test"])
        images = images["train"] + images["test"]
    assert len(rows) == len(images) and len({row["id"] for row in rows}) == len(rows)
    remaining = {get_bytes(image): (label, image) for label, image in images}
    for row in rows:
        content = row["image"]
        if content not in remaining:
            content = np.array(Image.open(io.BytesIO(content))).tobytes()
        label, image = remaining.pop(content)
        assert label == row["label"] and has_image(row, image)


def test_prepare_dataset_ignores_the_order_of_files_on_disk(tmp_path, monkeypatch):
    """torchvision lists SUN397 in the file system's order, and the split is drawn from the list."""
    import torchvision

    public_files.sun397(tmp_path / "root")
    spec = {"torchvision": "SUN397", "root": str(tmp_path / "root")}
    first = prepare_dataset("sun", spec, tmp_path / "a", seed=0)
    before = torchvision.datasets.SUN397.__init__

    def reversed_init(self, *args, **options):
        before(self, *args, **options)
        self._image_files.reverse()
        self._labels.reverse()

    monkeypatch.setattr(torchvision.datasets.SUN397, "__init__", reversed_init)
    assert prepare_dataset("sun", spec, tmp_path / "b", seed=0)["digest"] == first["digest"]


@pytest.mark.parametrize(
    ("name", "harm", "message"),
    [
        (
            "CIFAR100",
            lambda r: (r / "cifar-100-python/train").write_bytes(b"half"),
            r"CIFAR100 .*broken \(.+\)",
        ),
        ("CIFAR100", lambda r: (r / "cifar-100-python/meta").unlink(), r"missing or broken \(.+\)"),
        ("SVHN", lambda r: (r / "test_32x32.mat").unlink(), r"SVHN .*missing or broken \(.+\)"),
        ("GTSRB", lambda r: (r / "gtsrb/GT-final_test.csv").unlink(), "GT-final_test.csv"),
        ("DTD", lambda r: (r / "dtd/dtd/labels/test1.txt").unlink(), "test1.txt"),
        ("MNIST", lambda r: (r / "MNIST/raw/t10k-labels-idx1-ubyte").write_bytes(b"\0"), "missing"),
    ],
)
def test_prepare_dataset_refuses_broken_files_of_torchvision(
    name, harm, message, tmp_path, monkeypatch
):
    TORCHVISION[name][0](tmp_path / "root", monkeypatch.setattr)
    harm(tmp_path / "root")
    spec = {"torchvision": name, "root": str(tmp_path / "root")}
    with pytest.raises(ForetuneError, match=message) as caught:
        prepare_dataset("it", spec, tmp_path / "out", seed=0)
    assert "make fetch STUDY=" in str(caught.value) and "by hand: put" in str(caught.value)
    assert "download=True" not in str(caught.value)
    assert not (tmp_path / "out/dataset.json").exists()


def test_prepare_dataset_names_a_lost_image_of_an_unpacked_archive(tmp_path):
    public_files.dtd(tmp_path / "root")
    next((tmp_path / "root/dtd/dtd/images/blotchy").glob("*train*")).unlink()
    spec = {"torchvision": "DTD", "root": str(tmp_path / "root")}
    with pytest.raises(ForetuneError, match=r"blotchy_train\d+\.jpg: cannot be read"):
        prepare_dataset("it", spec, tmp_path / "out", seed=0)


def test_prepare_dataset_reads_webdataset_tars(tmp_path):
    names = ["sunglasses", "crow", "sunglasses"]
    images = public_files.clip_benchmark(tmp_path / "root", names, {"train": 40, "test": 15})
    spec = {"webdataset": "me/it", "root": str(tmp_path / "root")}
    renamed = {**spec, "classes": {"sunglasses (2)": "dark glasses"}}
    manifest = prepare_dataset("it", renamed, tmp_path / "out", seed=0)
    assert manifest["classes"] == ["sunglasses", "crow", "dark glasses"]
    assert manifest["source_classes"] == ["sunglasses", "crow", "sunglasses (2)"]
    assert manifest["caption"] == "a photo of a {}." and manifest["splits"]["val"]["rows"] == 4
    labels = {row["image"]: row["label"] for row in read_rows(tmp_path / "out", "train", "val")}
    assert labels == {image: label for label, image in images["train"]}
    tests = read_rows(tmp_path / "out", "test")
    assert [(row["label"], row["image"]) for row in tests] == images["test"]
    assert tests[0]["id"] == "test/0/s0000000"
    # A shifted test has test/ only, and here fewer classes.
    public_files.clip_benchmark(tmp_path / "shift", ["sunglasses", "crow"], {"test": 9})
    shift = {"webdataset": "me/shift", "root": str(tmp_path / "shift")}
    moved = prepare_shifted_test("other", shift, tmp_path / "out", tmp_path / "moved")
    assert moved["splits"]["test"]["rows"] == 9
    with pytest.raises(ForetuneError, match=r"train/\*\.tar: 0 of the tars; on a machine with"):
        prepare_dataset("it", shift, tmp_path / "none", seed=0)


def test_prepare_dataset_reads_webdataset_tars_of_another_layout(tmp_path):
    public_files.clip_benchmark(tmp_path, ["a", "b"], {"train": 30, "test": 10})
    (tmp_path / "train/0.tar").rename(tmp_path / "it-train-0000.tar")
    (tmp_path / "train/1.tar").rename(tmp_path / "it-train-0001.tar")
    (tmp_path / "test").rename(tmp_path / "validation")
    splits = {"train": "it-train-*.tar", "test": "validation"}
    spec = {"webdataset": "me/it", "root": str(tmp_path), "splits": splits}
    manifest = prepare_dataset("it", spec, tmp_path / "out", seed=0)
    assert {s: v["rows"] for s, v in manifest["splits"].items()} == {
        "train": 27, "val": 3, "test": 10
    }  # fmt: skip


def cut_in_a_picture(root):
    path = root / "test/1.tar"
    path.write_bytes(path.read_bytes()[:1000])


def cut_between_samples(root):
    path = root / "test/1.tar"
    with tarfile.open(path) as tar:
        end = tar.getmembers()[4].offset
    path.write_bytes(path.read_bytes()[:end])


def garble_a_header(root):
    path = root / "test/1.tar"
    with tarfile.open(path) as tar:
        start = tar.getmembers()[4].offset
    content = bytearray(path.read_bytes())
    content[start : start + 512] = b"x" * 512
    path.write_bytes(content)


def rewrite(root, **members):
    with tarfile.open(root / "test/1.tar", "w") as tar:
        public_files.add_sample(tar, "s9", **members)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut_in_a_picture, r"test/1\.tar: half-written or broken \(unexpected end of data"),
        (cut_between_samples, r"test/1\.tar: half-written or broken \(no end mark\); delete it"),
        (garble_a_header, r"test/1\.tar: half-written or broken \(no end mark\)"),
        (lambda root: (root / "test/0.tar").unlink(), r"test/\*\.tar: 1 of 2 tars"),
        (lambda root: (root / "classnames.txt").unlink(), r"classnames\.txt: no such file"),
        (lambda root: rewrite(root, jpg=b""), r"s9: needs an image and \.cls, has jpg"),
        (lambda root: rewrite(root, cls=b"0"), r"s9: needs an image and \.cls, has cls"),
        (lambda root: rewrite(root, jpg=b"", cls=b"-1"), r"s9: b'-1' is not a label"),
        (lambda root: rewrite(root, jpg=b"", cls=b"1"), r"s9: not a readable image"),
    ],
)
def test_prepare_dataset_refuses_broken_tars(harm, message, tmp_path):
    root = tmp_path / "root"
    public_files.clip_benchmark(root, ["a", "b"], {"train": 20, "test": 10})
    harm(root)
    spec = {"webdataset": "me/it", "root": str(root)}
    with pytest.raises(ForetuneError, match=message):
        prepare_dataset("it", spec, tmp_path / "out", seed=0)
    assert not list((tmp_path / "out").glob("*")) or not (tmp_path / "out/dataset.json").exists()


def change_header(path, number, change):
    """Change the header of a tar's member, and its checksum."""
    with tarfile.open(path) as tar:
        start = tar.getmembers()[number].offset
    content = bytearray(path.read_bytes())
    header = change(bytes(content[start : start + 512]))
    header = header[:148] + b" " * 8 + header[156:]
    checksum = b"%06o\0 " % sum(header)
    content[start : start + 512] = header[:148] + checksum + header[156:]
    path.write_bytes(content)


@pytest.mark.parametrize(
    "size", [b"\xff" * 10 + b"\xfe\0", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"77777777777\0"]
)  # -512, -1, 2^88 and 8 GB
def test_prepare_dataset_refuses_tars_with_impossible_sizes(size, tmp_path):
    """tarfile of Python 3.11.7 would go back in the file by a negative size, without end."""
    root = tmp_path / "root"
    public_files.clip_benchmark(root, ["a", "b"], {"train": 20, "test": 10})
    change_header(root / "test/1.tar", 2, lambda header: header[:124] + size + header[136:])
    spec = {"webdataset": "me/it", "root": str(root)}
    with pytest.raises(ForetuneError, match=r"test/1\.tar: half-written or broken"):
        prepare_dataset("it", spec, tmp_path / "out", seed=0)


def test_prepare_dataset_counts_what_is_no_sample_of_a_tar(tmp_path):
    root = tmp_path / "root"
    public_files.clip_benchmark(root, ["a", "b"], {"train": 20, "test": 10})
    with tarfile.open(root / "test/1.tar", "w") as tar:
        public_files.add_sample(tar, "s1", png=public_files.encoded("PNG"), cls=b"0",
                                jpg=public_files.encoded(), json=b"{}")  # fmt: skip
        public_files.add_sample(tar, "._s1", png=b"")
        public_files.add_sample(tar, "s2", png=public_files.encoded("PNG"), cls=b"1")
        for name, kind in (("s3.png", tarfile.LNKTYPE), ("s4.png", tarfile.SYMTYPE),
                           ("README", tarfile.REGTYPE), ("folder", tarfile.DIRTYPE)):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "s1.png"
            tar.addfile(member)
    spec = {"webdataset": "me/it", "root": str(root)}
    manifest = prepare_dataset("it", spec, tmp_path / "out", seed=0)
    assert manifest["splits"]["test"]["rows"] == 7
    assert json.loads((tmp_path / "out/notes.json").read_text())["left_out"] == {
        "links and devices in tars": 2, "hidden files": 1, "no suffix": 1,
        "further images of a sample": 1,
    }  # fmt: skip


@pytest.mark.parametrize("label", [b"9" * 5000, b"1e3", "²".encode(), b""])
def test_prepare_dataset_refuses_labels_of_tars_that_are_no_numbers(label, tmp_path):
    root = tmp_path / "root"
    public_files.clip_benchmark(root, ["a", "b"], {"train": 20, "test": 10})
    rewrite(root, jpg=public_files.encoded(), cls=label)
    spec = {"webdataset": "me/it", "root": str(root)}
    with pytest.raises(ForetuneError, match=r"sample s9: .* is not a label"):
        prepare_dataset("it", spec, tmp_path / "out", seed=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("classnames.txt", b"a\n\nb\n", r"classnames\.txt: line 2 is blank"),
        ("classnames.txt", b"\xff\xfe", r"classnames\.txt: not a readable text"),
        ("classnames.txt", b"a\n", r"label 1 is not in 0\.\.0"),
        ("zeroshot_classification_templates.txt", b"a photo\n", r"has no \{c\} for the class: 'a"),
        ("zeroshot_classification_templates.txt", b"", r"has no \{c\} for the class: ''"),
        ("test/nshards.txt", b"two", r"nshards\.txt: 'two' is not a number of tars"),
    ],
)
def test_prepare_dataset_refuses_odd_texts_beside_tars(name, content, message, tmp_path):
    root = tmp_path / "root"
    public_files.clip_benchmark(root, ["a", "b"], {"train": 20, "test": 10})
    (root / name).write_bytes(content)
    spec = {"webdataset": "me/it", "root": str(root)}
    with pytest.raises(ForetuneError, match=message):
        prepare_dataset("it", spec, tmp_path / "out", seed=0)


def test_prepare_dataset_reads_blank_last_lines_and_samples_of_one_key(tmp_path):
    root = tmp_path / "root"
    public_files.clip_benchmark(root, ["a", "b"], {"train": 20, "test": 10})
    (root / "classnames.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n\r\n \n")
    (root / "zeroshot_classification_templates.txt").write_text("\nan image of {c}\n")
    with tarfile.open(root / "test/1.tar", "w") as tar:
        for label in (b"0", b"1", b"1"):
            public_files.add_sample(tar, "s9", png=public_files.encoded("PNG"), cls=label)
    manifest = prepare_dataset("it", {"webdataset": "me/it", "root": str(root)}, tmp_path, seed=0)
    assert manifest["classes"] == ["a", "b"] and manifest["caption"] == "an image of {}"
    assert [row["label"] for row in read_rows(tmp_path, "test")][-3:] == [0, 1, 1]
    assert "2 of 28 images have the name of another one" in read_notes(tmp_path)


@pytest.fixture
def hf(tmp_path, monkeypatch):
    """Hugging Face's library, a dataset of it with 30 labelled images, and their bytes."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    images = [public_files.encoded(("JPEG", "PNG")[i % 2]) for i in range(30)]
    features = datasets.Features(
        {"img": datasets.Image(), "fine": datasets.ClassLabel(names=["old_crow", "jay", "rook"])}
    )
    content = {
        "img": [{"bytes": i, "path": None} for i in images],
        "fine": [i % 3 for i in range(30)],
    }
    return datasets, datasets.Dataset.from_dict(content, features), images


@pytest.mark.parametrize("form", ["parquet", "arrow", "strings"])
def test_prepare_dataset_reads_hugging_face_datasets(form, hf, tmp_path):
    library, table, images = hf
    root, spec = tmp_path / "root", {}
    if form == "arrow":
        library.DatasetDict({"train": table, "test": table}).save_to_disk(root)
        spec = {"image": "img", "label": "fine"}
    else:
        if form == "strings":  # labels as text, in no order
            names = ["rook", "jay", "old_crow"]
            table = table.cast_column("fine", library.Value("int64"))
            table = table.map(lambda row: {"species": names[row["fine"]]}, remove_columns="fine")
            spec = {"label": "species"}
        spec["splits"] = {"test": "validation"}
        for split in ("train", "validation"):
            (root / "data").mkdir(parents=True, exist_ok=True)
            table.to_parquet(root / f"data/{split}-00000-of-00001.parquet")
    spec = {"huggingface": "me/it", "root": str(root), **spec}
    manifest = prepare_dataset("it", spec, tmp_path / "out", seed=0)
    names = ["jay", "old crow", "rook"] if form == "strings" else ["old crow", "jay", "rook"]
    assert manifest["classes"] == names
    rows = read_rows(tmp_path / "out", "test")
    assert [row["image"] for row in rows] == images
    number = [2, 0, 1] if form == "strings" else [0, 1, 2]
    assert [row["label"] for row in rows] == [number[i % 3] for i in range(30)]
    with pytest.raises(ForetuneError, match=r"has no column kind .it has .*; name it by `label:`"):
        prepare_dataset("it", {**spec, "label": "kind"}, tmp_path / "no", seed=0)
    with pytest.raises(ForetuneError, match="cannot read split dev"):
        prepare_dataset("it", {**spec, "splits": {"train": "dev"}}, tmp_path / "no", seed=0)


def test_prepare_dataset_divides_a_single_saved_dataset(hf, tmp_path):
    _, table, images = hf
    table.save_to_disk(tmp_path / "root")
    spec = {"huggingface": "me/it", "root": str(tmp_path / "root")}
    manifest = prepare_dataset("it", spec, tmp_path / "out", seed=0)
    counts = {split: facts["rows"] for split, facts in manifest["splits"].items()}
    assert counts == {"train": 22, "val": 2, "test": 6} and len(images) == 30


def test_prepare_dataset_names_rows_without_image_or_label(hf, tmp_path):
    library, _, images = hf
    content = {
        "img": [{"bytes": i, "path": None} for i in images],
        "fine": ["ab"[i % 2] for i in range(30)],
    }
    content["img"][3], content["img"][4] = None, {"bytes": b"", "path": None}
    content["fine"][6] = None
    features = library.Features({"img": library.Image(), "fine": library.Value("string")})
    odd = library.Dataset.from_dict(content, features)
    library.DatasetDict({"train": odd, "test": odd}).save_to_disk(tmp_path / "root")
    spec = {"huggingface": "me/it", "root": str(tmp_path / "root"), "label": "fine"}
    with pytest.raises(ForetuneError) as caught:
        prepare_dataset("it", spec, tmp_path / "out", seed=0)
    for reason in ("train: row 3: has no image", "train: row 4: has no image",
                   "train/000006: label None", "test: row 3: has no image"):  # fmt: skip
        assert reason in str(caught.value)


def test_prepare_dataset_refuses_several_labels_per_image(hf, tmp_path):
    library, table, _ = hf
    many = table.cast_column("fine", library.Value("int64")).map(
        lambda row: {"fine": [row["fine"]]}
    )
    library.DatasetDict({"train": many, "test": many}).save_to_disk(tmp_path / "root")
    spec = {"huggingface": "me/it", "root": str(tmp_path / "root"), "label": "fine"}
    with pytest.raises(ForetuneError, match="train: column fine has no single label per image"):
        prepare_dataset("it", spec, tmp_path / "out", seed=0)
    flat = table.add_column("number", list(range(30)))
    flat.save_to_disk(tmp_path / "flat")
    spec = {**spec, "root": str(tmp_path / "flat"), "image": "number"}
    with pytest.raises(ForetuneError, match="column number: no images"):
        prepare_dataset("it", spec, tmp_path / "out", seed=0)
    library.DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "both")
    spec = {"huggingface": "me/it", "root": str(tmp_path / "both"), "label": "fine"}
    with pytest.raises(ForetuneError, match=r"it has train, test; name it by `splits:`"):
        prepare_dataset("it", {**spec, "splits": {"test": "dev"}}, tmp_path / "out", seed=0)


def test_prepare_dataset_refuses_hugging_face_datasets_that_read_other_folders(hf, tmp_path):
    library, table, images = hf
    root, secret = tmp_path / "root", tmp_path / "secret"
    table.to_parquet(secret / "train.parquet")
    (secret / "own.png").write_bytes(images[0])
    spec = {"huggingface": "me/it", "root": str(root), "label": "fine", "splits": {"test": "train"}}
    root.mkdir()
    for path in ("../secret/train.parquet", str(secret / "train.parquet")):
        files = {"configs": [{"config_name": "default", "data_files": path}]}
        (root / "README.md").write_text(f"---\n{yaml.safe_dump(files)}---\n")
        with pytest.raises(ForetuneError, match=r"train\.parquet, which lies outside the folder"):
            prepare_dataset("it", spec, tmp_path / "out", seed=0)
    (root / "README.md").unlink()
    (root / "inside.png").write_bytes(images[0])
    features = library.Features({"img": library.Image(), "fine": library.Value("string")})
    paths = ["inside.png", "../secret/own.png", str(secret / "own.png")]
    cells = pa.array(
        [{"bytes": None, "path": path} for path in paths], features.arrow_schema[0].type
    )
    rows = pa.table([cells, pa.array(["a", "b", "b"])], schema=features.arrow_schema)
    pq.write_table(rows, root / "train.parquet")
    with pytest.raises(ForetuneError) as caught:
        prepare_dataset("it", spec, tmp_path / "out", seed=0)
    for number, path in enumerate(paths):
        assert (f"row {number}: {path} lies outside the folder" in str(caught.value)) == (
            number > 0
        )
        assert f"row {number}: has no image" not in str(caught.value)


def test_prepare_dataset_explains_a_missing_hugging_face_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ForetuneError, match="pip install datasets"):
        spec = {"huggingface": "me/it", "root": str(tmp_path)}
        prepare_dataset("it", spec, tmp_path / "out", seed=0)


def test_prepare_dataset_reads_a_table_of_files(tmp_path):
    """A table like FMoW's in WILDS: peft.yaml's queries leave out the sequestered images."""
    study = yaml.safe_load((ROOT / "studies/peft.yaml").read_text())
    spec = dict(study["datasets"]["fmow"])
    shift = dict(spec["shifted"]["ood"])
    spec["table"] = shift["table"] = str(tmp_path / "rgb_metadata.csv")
    lines, expected = ["split,img_filename,category,timestamp"], {"train": 0, "test": 0, "ood": 0}
    for i in range(120):
        split = ("train", "val", "test", "seq")[i % 4]
        year = 2010 + (i // 4) % 8
        category = ("zoo", "wind_farm")[i // 4 % 2]
        lines.append(f"{split},x.jpg,{category},{year}-06-01T10:00:00Z")
        public_files.put(tmp_path / f"images/rgb_img_{i}.png", public_files.encoded("PNG"))
        expected["train"] += split == "train" and year < 2013
        expected["test"] += split == "test" and year < 2013
        expected["ood"] += split == "test" and year >= 2016
    (tmp_path / "rgb_metadata.csv").write_text("\n".join(lines))
    manifest = prepare_dataset("fmow", spec, tmp_path / "out", seed=0)
    counts = {s: v["rows"] for s, v in manifest["splits"].items()}
    assert counts["train"] + counts["val"] == expected["train"] > 10
    assert counts["test"] == expected["test"] > 0 and manifest["classes"] == ["wind farm", "zoo"]
    for row in read_rows(tmp_path / "out", "train", "val", "test"):
        number = int(row["id"].removeprefix("images/rgb_img_").removesuffix(".png"))
        assert row["label"] == (number // 4 + 1) % 2
        assert row["image"] == (tmp_path / row["id"]).read_bytes()
    moved = prepare_shifted_test("ood", shift, tmp_path / "out", tmp_path / "ood")
    assert moved["splits"]["test"]["rows"] == expected["ood"] > 0
    for harm, message in [
        ({"label": "kind"}, "has no column kind, but split, img_filename, category, timestamp"),
        ({"splits": {"train": "spilt == 'train'"}}, "spilt"),
        ({"image": "{file}.png"}, "file"),
        ({"table": str(tmp_path / "no.csv")}, "no such file; it comes from http"),
    ]:
        with pytest.raises(ForetuneError, match=message):
            prepare_dataset("fmow", spec | harm, tmp_path / "no", seed=0)


MEMORY = """
import resource, sys
from pathlib import Path
sys.path.insert(0, "workflow_scripts")
from foretune.data.prepare import prepare_dataset
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
prepare_dataset("it", {"webdataset": "me/it", "root": sys.argv[1]}, Path(sys.argv[2]), 0)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_prepare_dataset_streams_images(tmp_path):
    """600 MB of images pass through less than half as much memory."""
    root = tmp_path / "root"
    public_files.clip_benchmark(root, ["a", "b"], {"train": 20, "test": 10})
    buffer = io.BytesIO()
    Image.fromarray(public_files.pixels(1, 600)[0]).save(buffer, "BMP")  # a megabyte
    for shard in range(2):
        with tarfile.open(root / f"train/{shard}.tar", "w") as tar:
            for i in range(300):
                public_files.add_sample(tar, f"s{i}", bmp=buffer.getvalue(), cls=b"%d" % (i % 2))
    command = [sys.executable, "-c", MEMORY, root, tmp_path / "out"]
    grown = int(subprocess.check_output(command, cwd=ROOT, text=True))
    assert grown < 280, f"{grown} MB"
    assert json.loads((tmp_path / "out/dataset.json").read_text())["splits"]["val"]["rows"] == 60


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"torchvision": "Cifar100"}, "datasets.it.torchvision: 'Cifar100' is not one of"),
        ({"webdataset": "no such/thing/here"}, "neither a folder nor owner/name of a dataset"),
        (
            {"torchvision": "MNIST", "subset": "a"},
            "datasets.it.subset: not a key of a torchvision source",
        ),
        (
            {"folder": ".", "splits": {"train": "a"}},
            "datasets.it.splits: not a key of a folder source",
        ),
        ({"table": "a.csv", "image": "{row}.png"}, "datasets.it.label: is missing"),
        ({"huggingface": "a/b", "splits": {"val": "c"}}, "datasets.it.splits.val: unknown key"),
        ({"torchvision": "MNIST", "folder": "."}, "has torchvision, folder; give one of"),
    ],
)
def test_check_config_names_mistakes_in_sources(entry, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    study["datasets"]["it"] = entry
    with pytest.raises(ForetuneError) as caught:
        check_config(study)
    assert message in str(caught.value)


def test_registry_has_every_dataset_that_the_schema_allows(monkeypatch):
    schema = yaml.safe_load(
        (ROOT / "workflow_scripts/foretune/core/config.schema.yaml").read_text()
    )
    known = yaml.safe_load(REGISTRY.read_text())
    allowed = schema["$defs"]["dataset"]["properties"]["torchvision"]["enum"]
    assert sorted(allowed) == sorted(known["torchvision"])
    for name in ("paper", "peft"):
        study = check_config(yaml.safe_load((ROOT / f"studies/{name}.yaml").read_text()))
        for entry in study["datasets"].values():
            for source in (entry, *entry["shifted"].values()):
                if "webdataset" in source:
                    assert known["hub"][source["webdataset"]]["licence"]
