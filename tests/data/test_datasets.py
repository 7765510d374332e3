"""Preparing datasets and shifted tests from folders and Parquet files."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from checkout import ROOT
from foretune.core.errors import ForetuneError
from foretune.core.parquet import read_metadata, write_parquet
from foretune.data.prepare import draw_rows, prepare_dataset, prepare_shifted_test
from foretune.data.prepared import decode_image, get_dataset_title, read_split
from foretune.suite.bundles import bundle_digits


def encode_picture(shade: int) -> bytes:
    """Return a small PNG in one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), (shade, 0, 255 - shade)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """A folder of two classes with 25 pictures each."""
    for label, name in enumerate(["old_crow", "jay"]):
        (tmp_path / "birds" / name).mkdir(parents=True)
        for i in range(25):
            (tmp_path / "birds" / name / f"{i:02}.png").write_bytes(encode_picture(100 * label + i))
    return tmp_path / "birds"


def test_prepare_dataset_reads_a_folder_of_images(folder, tmp_path):
    manifest = prepare_dataset("birds", {"folder": str(folder)}, tmp_path / "out", seed=0)
    assert manifest["classes"] == ["jay", "old crow"]
    assert {k: v["rows"] for k, v in manifest["splits"].items()} == {
        "train": 36, "val": 4, "test": 10
    }  # fmt: skip
    tables = {split: read_split(tmp_path / "out", split) for split in ("train", "val", "test")}
    ids = [i for table in tables.values() for i in table["id"].to_pylist()]
    assert len(set(ids)) == 50
    for table in tables.values():
        for row in table.to_pylist():
            assert row["label"] == int(row["id"].startswith("old_crow/"))
            assert row["image"] == (folder / row["id"]).read_bytes()


def test_prepare_dataset_skips_hidden_files_and_folders_named_like_images(folder, tmp_path):
    (folder / "jay/._a.png").write_bytes(b"not an image")
    (folder / "jay/x.png").mkdir()
    manifest = prepare_dataset("birds", {"folder": str(folder)}, tmp_path / "out", seed=0)
    assert sum(split["rows"] for split in manifest["splits"].values()) == 50


def read_groups_by_split(folder) -> dict[str, set]:
    splits = ("train", "val", "test")
    return {split: set(read_split(folder, split)["group"].to_pylist()) for split in splits}


def test_prepare_dataset_keeps_the_groups_of_a_folder_together(folder, tmp_path):
    files = sorted(folder.rglob("*.png"))
    lines = [
        f"{file.relative_to(folder)},{int(file.stem) // 3}{file.parent.name}" for file in files
    ]
    (folder / "groups.csv").write_text("file,group\n" + "\n".join(lines) + "\n")
    for seed in range(5):
        prepare_dataset("birds", {"folder": str(folder)}, tmp_path / str(seed), seed)
        train, val, test = read_groups_by_split(tmp_path / str(seed)).values()
        assert val and test and not train & (val | test) and not val & test
        assert len(train | val | test) == 18
    (folder / "groups.csv").write_text("file,group\njay/90.png,a\n")
    with pytest.raises(ForetuneError, match=r"groups\.csv: line 2: there is no file jay/90\.png"):
        prepare_dataset("birds", {"folder": str(folder)}, tmp_path / "no", seed=0)


@pytest.mark.parametrize(("name", "in_test"), [("stamps", 191), ("letters", 20)])
def test_prepare_dataset_keeps_the_groups_of_a_bundled_dataset_together(name, in_test, tmp_path):
    spec = {"parquet": ROOT / f"resources/mini/{name}.parquet"}
    prepare_dataset(name, spec, tmp_path, seed=0)
    train, val, test = read_groups_by_split(tmp_path).values()
    assert val and not train & val and not (train | val) & test and len(test) == in_test


def test_draw_rows_draws_every_class_and_leaves_some_of_it():
    labels = [0] * 40 + [1] * 3 + [2] * 2 + [3]
    for seed in range(20):
        drawn = draw_rows(labels, None, 1 / 5, 1, seed)
        assert [int(drawn[np.array(labels) == label].sum()) for label in range(4)] == [8, 1, 1, 0]
    assert len({draw_rows(labels, None, 1 / 5, 1, seed).tobytes() for seed in range(20)}) > 10


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WebP"])
def test_decode_image_turns_photographs_upright(file_format):
    upright = Image.new("RGB", (8, 6), "white")
    upright.paste((200, 0, 0), (0, 0, 4, 6))
    # How the camera stored the picture: EXIF's orientation k is undone by this transposition.
    stored = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    for orientation, transposition in stored.items():
        picture = upright if transposition is None else upright.transpose(transposition)
        exif, buffer = Image.Exif(), io.BytesIO()
        exif[0x0112] = orientation
        picture.save(buffer, file_format, exif=exif, quality=95, lossless=True)
        decoded = np.asarray(decode_image(buffer.getvalue(), "a photo").convert("RGB"), float)
        assert decoded.shape == (6, 8, 3)
        assert np.abs(decoded - np.asarray(upright)).mean() < 20


def test_decode_image_ignores_a_damaged_exif_block():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, "JPEG", exif=b"Exif\0\0MM\0*damaged")
    assert decode_image(buffer.getvalue(), "a photo").size == (8, 6)


def test_prepare_dataset_uses_a_folder_named_test_as_the_test(folder, tmp_path):
    both = tmp_path / "both"
    both.mkdir()
    folder.rename(both / "train")
    (both / "test/jay").mkdir(parents=True)
    (both / "test/jay/a.png").write_bytes(encode_picture(3))
    manifest = prepare_dataset("birds", {"folder": str(both)}, tmp_path / "out", seed=0)
    assert {k: v["rows"] for k, v in manifest["splits"].items()} == {
        "train": 45, "val": 5, "test": 1
    }  # fmt: skip


def test_prepare_dataset_draws_splits_by_its_seed(folder, tmp_path):
    first, same, other = (
        prepare_dataset("birds", {"folder": str(folder)}, tmp_path / str(i), seed=seed)["digest"]
        for i, seed in enumerate((0, 0, 1))
    )
    assert first == same != other


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "jay/03.png").write_bytes(b"no"), r"jay/03\.png: not a readable image"),
        (lambda f: [p.unlink() for p in (f / "jay").iterdir()], r"no training image of \['jay'\]"),
        (lambda f: [p.unlink() for p in f.rglob("*.png")], "no images in its train split"),
        (lambda f: (f / "jay").rename(f.parent / "away"), "at least two"),
        (lambda f: (f / "jay").rename(f / "train"), "has train/ but no test/"),
        (lambda f: (f / "jay").rename(f / "old crow"), "two classes have the same name"),
        (
            lambda f: (f / "jay/04.png").write_bytes(encode_picture(4)[:-30]),
            r"jay/04\.png: not a readable",
        ),
        (lambda f: Image.new("I;16", (4, 4)).save(f / "jay/05.png"), "more than 8 bits"),
    ],
)
def test_prepare_dataset_refuses_broken_folders(folder, tmp_path, harm, message):
    harm(folder)
    with pytest.raises(ForetuneError, match=message):
        prepare_dataset("birds", {"folder": str(folder)}, tmp_path / "out", seed=0)
    assert not (tmp_path / "out/dataset.json").exists()


def test_prepare_dataset_refuses_a_label_out_of_range(tmp_path):
    rows = [{"image": encode_picture(i), "label": i % 3, "split": "train"} for i in range(20)]
    facts = {"classes": ["a", "b"], "caption": "a {}", "licence": "-", "source": "-"}
    write_parquet(pa.Table.from_pylist(rows), tmp_path / "bad.parquet", facts)
    with pytest.raises(ForetuneError, match=r"dataset bad, train, 000002: label 2 is not in 0..1"):
        prepare_dataset("bad", {"parquet": tmp_path / "bad.parquet"}, tmp_path / "out", seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": [True, False] * 10}, "the column label has bool, and needs integers"),
        ({"label": ["a", "b"] * 10}, "the column label has string, and needs integers"),
        ({"image": ["a.png"] * 20}, "the column image has string, and needs encoded bytes"),
        ({"image": [None] + [encode_picture(1)] * 19}, "row 0: has no image"),
        ({"label": [None] + [1] * 19}, "label None is not in"),
        ({"split": [None] + ["test"] * 19}, "row 0: split None is not train or test"),
        ({"classes": [1, 2]}, r"not a list of texts: \[1, 2\]"),
        ({"classes": "ab"}, "not a list of texts: 'ab'"),
        ({"caption": "a photo"}, "has no {}: 'a photo'"),
        ({"licence": ["MIT"]}, r"licence in its metadata is not a text: \['MIT'\]"),
    ],
)
def test_prepare_dataset_refuses_odd_parquet_files(change, message, tmp_path):
    columns = {"image": [encode_picture(i) for i in range(20)], "label": [i % 2 for i in range(20)],
               "split": ["train"] * 15 + ["test"] * 5}  # fmt: skip
    facts = {"classes": ["a", "b"], "caption": "a {}", "licence": "-", "source": "-"}
    columns |= {key: value for key, value in change.items() if key in columns}
    facts |= {key: value for key, value in change.items() if key in facts}
    write_parquet(pa.table(columns), tmp_path / "odd.parquet", facts)
    with pytest.raises(ForetuneError, match=message):
        prepare_dataset("odd", {"parquet": tmp_path / "odd.parquet"}, tmp_path / "out", seed=0)


def test_prepare_dataset_refuses_parquet_files_with_damaged_pages_and_equal_columns(tmp_path):
    facts = {"classes": ["a", "b"], "caption": "a {}", "licence": "-", "source": "-"}
    images = pa.array([encode_picture(i) for i in range(40)])
    labels, splits = pa.array([0, 1] * 20), pa.array(["train"] * 30 + ["test"] * 10)
    path, columns = tmp_path / "x.parquet", [images, labels, splits]
    write_parquet(pa.table(columns, ["image", "label", "split"]), path, facts, compression="none")
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 60 + content[64:])  # of the images, which come first
    with pytest.raises(ForetuneError, match=r"x\.parquet: not a readable Parquet file"):
        prepare_dataset("x", {"parquet": path}, tmp_path / "out", seed=0)
    write_parquet(pa.table([*columns, labels], ["image", "label", "split", "label"]), path, facts)
    with pytest.raises(ForetuneError, match=r"x\.parquet: has more than one column label"):
        prepare_dataset("x", {"parquet": path}, tmp_path / "out", seed=0)


def test_read_split_refuses_another_version(folder, tmp_path):
    for seed in (0, 1):
        prepare_dataset("birds", {"folder": str(folder)}, tmp_path / str(seed), seed=seed)
    (tmp_path / "0/val.parquet").write_bytes((tmp_path / "1/val.parquet").read_bytes())
    with pytest.raises(ForetuneError, match=r"val\.parquet: belongs to another version"):
        read_split(tmp_path / "0", "val")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "digits"])
def test_bundled_datasets_are_small_and_state_their_licence(name, tmp_path):
    path = ROOT / f"resources/mini/{name}.parquet"
    assert path.stat().st_size <= 1_000_000
    facts = read_metadata(path)
    assert facts["licence"] and facts["source"]
    manifest = prepare_dataset(name, {"parquet": path}, tmp_path, seed=0)
    splits = {k: v["rows"] for k, v in manifest["splits"].items()}
    assert 1000 <= splits["train"] + splits["val"] <= 2000 and 500 <= splits["test"] <= 1000
    tests = {row["image"] for row in read_split(tmp_path, "test").to_pylist()}
    assert not tests & {row["image"] for row in read_split(tmp_path, "train").to_pylist()}


def test_bundle_digits_rebuilds_the_bundled_dataset(tmp_path):
    """The pixels are compared, not the files: PNG encoders differ between versions of Pillow."""
    bundle_digits(tmp_path, tmp_path / "digits.parquet", 0)
    rebuilt, bundled = (
        prepare_dataset("digits", {"parquet": path}, tmp_path / str(i), seed=0)
        for i, path in enumerate(
            [tmp_path / "digits.parquet", ROOT / "resources/mini/digits.parquet"]
        )
    )
    for key in ("classes", "source_classes", "caption", "licence", "source", "splits"):
        assert rebuilt[key] == bundled[key]
    for split in ("train", "val", "test"):
        first, second = (read_split(tmp_path / folder, split).to_pylist() for folder in "01")
        for row, other in zip(first, second, strict=True):
            assert (row["id"], row["label"]) == (other["id"], other["label"])
            pixels, expected = (np.array(Image.open(io.BytesIO(r["image"]))) for r in (row, other))
            assert np.array_equal(pixels, expected)


def test_prepare_dataset_writes_the_manifest_as_json(folder, tmp_path):
    prepare_dataset("birds", {"folder": str(folder)}, tmp_path / "out", seed=0)
    manifest = json.loads((tmp_path / "out/dataset.json").read_text())
    assert np.array_equal(sorted(manifest["splits"]), ["test", "train", "val"])


@pytest.fixture
def parent(tmp_path):
    """A prepared dataset of three classes that are renamed for the captions."""
    rows = [
        {"image": encode_picture(i), "label": i % 3, "split": "test" if i > 40 else "train"}
        for i in range(60)
    ]
    facts = {
        "classes": ["cat", "jay", "old crow"],
        "caption": "a {}",
        "licence": "-",
        "source": "-",
    }
    write_parquet(pa.Table.from_pylist(rows), tmp_path / "beasts.parquet", facts)
    spec = {"parquet": tmp_path / "beasts.parquet", "classes": ["Katze", "Häher", "Krähe"]}
    prepare_dataset("beasts", spec, tmp_path / "parent", seed=0)
    return tmp_path / "parent"


@pytest.mark.parametrize("place", [".", "test"])
def test_prepare_shifted_test_accepts_some_of_the_classes(folder, parent, tmp_path, place):
    if place == "test":
        folder.rename(tmp_path / "away")
        (tmp_path / "birds/train/jay").mkdir(parents=True)
        (tmp_path / "away").rename(tmp_path / "birds/test")
    spec, output = {"folder": str(tmp_path / "birds")}, tmp_path / "out"
    manifest = prepare_shifted_test("photo", spec, parent, output)
    assert get_dataset_title(manifest) == "beasts · photo" and list(manifest["splits"]) == ["test"]
    assert manifest["classes"] == ["Katze", "Häher", "Krähe"] and manifest["caption"] == "a {}"
    assert manifest["parent"] == json.loads((parent / "dataset.json").read_text())["digest"]
    rows = read_split(output, "test").to_pylist()
    assert len(rows) == 50  # all rows, because a shifted test is never trained on
    assert all(row["label"] == (1 if "jay" in row["id"] else 2) for row in rows)


def test_prepare_shifted_test_refuses_a_class_that_the_dataset_lacks(folder, parent, tmp_path):
    (folder / "jay").rename(folder / "jackdaw")
    message = r"datasets\.beasts\.shifted\.photo: classes that beasts does not have: \['jackdaw'\]"
    with pytest.raises(ForetuneError, match=message):
        prepare_shifted_test("photo", {"folder": str(folder)}, parent, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prepare_shifted_test_refuses_a_label_out_of_range(parent, tmp_path):
    rows = [
        {"image": encode_picture(1), "label": 2, "split": "test"}
    ]  # a label that the parent has
    facts = {"classes": ["cat", "jay"], "caption": "a {}", "licence": "-", "source": "-"}
    write_parquet(pa.Table.from_pylist(rows), tmp_path / "bad.parquet", facts)
    with pytest.raises(ForetuneError, match=r"beasts, bad, 000000: label 2 is not in 0\.\.1"):
        prepare_shifted_test("bad", {"parquet": tmp_path / "bad.parquet"}, parent, tmp_path / "out")


def test_test_digest_depends_on_images_and_classes_only(folder, parent, tmp_path):
    """The same pictures are a dataset's, whose test is drawn from them, and a shifted test."""
    dataset = prepare_dataset("birds", {"folder": str(folder)}, tmp_path / "a", seed=0)
    shifted = prepare_shifted_test("photo", {"folder": str(folder)}, parent, tmp_path / "b")
    assert dataset["test_digest"] == shifted["test_digest"]
    assert dataset["digest"] != shifted["digest"]
    (folder / "jay/03.png").write_bytes(encode_picture(200))
    other = prepare_shifted_test("photo", {"folder": str(folder)}, parent, tmp_path / "c")
    assert other["test_digest"] != shifted["test_digest"]
    (folder / "jay/04.png").rename(folder / "old_crow/jay.png")  # another class
    third = prepare_shifted_test("photo", {"folder": str(folder)}, parent, tmp_path / "d")
    assert third["test_digest"] != other["test_digest"]


def test_halves_of_the_classes_are_datasets_of_their_own(tmp_path):
    spec = {"parquet": str(ROOT / "resources/mini/digits.parquet")}
    whole = prepare_dataset("digits", spec, tmp_path / "whole", 0)
    labels = {}
    for half in ("base", "new"):
        manifest = prepare_dataset(f"d_{half}", spec | {"class_half": half}, tmp_path / half, 0)
        rows = read_split(tmp_path / half, "test", ["id", "label"])
        names = [manifest["classes"][label] for label in rows["label"].to_pylist()]
        labels |= dict(zip(rows["id"].to_pylist(), names, strict=True))
        assert len(manifest["classes"]) == 5
    rows = read_split(tmp_path / "whole", "test", ["id", "label"])
    names = [whole["classes"][label] for label in rows["label"].to_pylist()]
    assert labels == dict(zip(rows["id"].to_pylist(), names, strict=True))


def test_halves_need_four_classes(folder, tmp_path):
    with pytest.raises(
        ForetuneError, match="dataset birds: has 2 classes, and halves of them need"
    ):
        prepare_dataset("birds", {"folder": str(folder), "class_half": "new"}, tmp_path / "out", 0)
