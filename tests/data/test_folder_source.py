"""Folders of images as people have them: layouts, names, and files that are left out."""

import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from foretune.core.errors import ForetuneError
from foretune.data.notes import read_notes
from foretune.data.prepare import prepare_dataset, prepare_shifted_test
from foretune.data.prepared import read_manifest, read_split
from foretune.data.sources.listing import digest_folder


def make_images(folder, *classes, n=20, side=8, suffix=".png"):
    """Write n images of noise for each class folder."""
    rng = np.random.default_rng(sum(map(ord, "".join([folder.name, *classes]))))
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            picture = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
            picture.save(folder / name / f"{i:03}{suffix}", "PNG")


@pytest.fixture
def prepare(tmp_path):
    """Return a function that prepares a folder: its images by split, its classes and its notes."""

    def work(folder, **spec):
        out = tmp_path / "out"
        manifest = prepare_dataset("d", {"folder": str(folder), **spec}, out, seed=0)
        counts = {split: facts["rows"] for split, facts in manifest["splits"].items()}
        return counts, manifest["classes"], read_notes(out)

    return work


@pytest.mark.parametrize(
    ("train", "test"), [("Training", "Testing"), ("Train", "TEST"), ("training_set", "test_set")]
)
def test_folders_of_splits_have_many_names(train, test, prepare, tmp_path):
    make_images(tmp_path / "d" / train, "glioma", "none")
    make_images(tmp_path / "d" / test, "glioma", "none", n=8)
    make_images(tmp_path / "d/Validation", "glioma", "none", n=5)
    counts, classes, notes = prepare(tmp_path / "d")
    assert counts == {"train": 36, "val": 4, "test": 16} and classes == ["glioma", "none"]
    assert notes == [f"Validation/ is not used; validation is a tenth of {train}/"]
    ids = read_split(tmp_path / "out", "test")["id"].to_pylist()
    assert all((tmp_path / "d" / name).is_file() for name in ids)


def test_parts_are_not_taken_for_classes(prepare, tmp_path):
    for year in ("2019", "2020"):
        make_images(tmp_path / "d" / year, "a", "b")
    with pytest.raises(ForetuneError, match=r"2019/, 2020/ look like parts of a dataset.*a, b"):
        prepare(tmp_path / "d")
    named = {"2019": "old", "2020": "new"}  # the user says that they are classes
    assert prepare(tmp_path / "d", classes=named)[1] == ["old", "new"]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["Training", "Testing"], r"Training: needs one subfolder per class"),
        (["train/a", "train/b", "val/a", "val/b"], r"no test/; .*rename val/ to test/"),
        (["test/a", "test/b"], r"has test/ but no train/"),
        (["train/a", "training/a", "test/a"], r"train/ and training/ look like its train split"),
        (["archive/a", "archive/b"], r"is .*archive the folder that is meant"),
    ],
)
def test_unclear_layouts_are_refused(folders, message, prepare, tmp_path):
    make_images(tmp_path / "d", *folders, n=3)
    with pytest.raises(ForetuneError, match=message):
        prepare(tmp_path / "d")


@pytest.mark.parametrize("names", [("valid", "invalid"), ("Testing", "idle"), ("Training", "rest")])
def test_a_class_may_be_called_like_a_split(names, prepare, tmp_path):
    make_images(tmp_path / "d", *names)
    assert prepare(tmp_path / "d")[1] == sorted(names)


def test_hidden_and_system_folders_are_left_out_and_said(prepare, tmp_path):
    folder = tmp_path / "d"
    make_images(folder, "cat", "dog")
    shutil.copytree(folder / "cat", folder / "cat/.ipynb_checkpoints")
    make_images(folder, "dog/@eaDir/000.png", "__MACOSX/cat", "@eaDir/x", n=1)
    for name in ("__pycache__", "lost+found", "notes", "empty"):
        (folder / name).mkdir()
    counts, classes, notes = prepare(folder)
    assert sum(counts.values()) == 40 and classes == ["cat", "dog"]
    for name in (".ipynb_checkpoints 1", "@eaDir 2", "__MACOSX 1", "__pycache__ 1", "lost+found 1"):
        assert name in notes[0]
    assert notes[1] == "no class, because it has no image: empty/, notes/"


def test_files_are_left_out_by_suffix_and_counted(prepare, tmp_path):
    folder = tmp_path / "d"
    make_images(folder, "cat", "dog")
    for suffix in (".jfif", ".jpe", ".JPG", ".tga", ".avif", ".pnm", ".png "):
        (folder / f"cat/x{suffix}").write_bytes((folder / "cat/000.png").read_bytes())
    for name in ("a.HEIC", "b.heic", "c", ".hidden", "notes.txt"):
        (folder / "dog" / name).write_bytes(b"")
    (folder / "over.png").write_bytes(b"")
    counts, _, notes = prepare(folder)
    assert sum(counts.values()) == 47
    assert notes[0].startswith("left out: .heic 2, ")
    for reason in ("no suffix 1", "hidden files 1", ".txt 1", "images beside the class folders 1"):
        assert reason in notes[0]


def test_a_class_of_formats_that_cannot_be_read_is_refused(prepare, tmp_path):
    make_images(tmp_path / "d", "cat", "dog", "owl")
    for path in (tmp_path / "d/owl").iterdir():
        path.rename(path.with_suffix(".heic"))
    with pytest.raises(ForetuneError, match=r"no training image of \['owl'\].*\.heic 20"):
        prepare(tmp_path / "d")


def test_links_are_followed_and_broken_ones_counted(prepare, tmp_path):
    make_images(tmp_path / "away", "z", n=10)
    folder = tmp_path / "d"
    make_images(folder, "cat", "dog")
    (folder / "cat/more").symlink_to(tmp_path / "away/z")
    (folder / "cat/gone.png").symlink_to("nowhere")
    (folder / "dog/loop").symlink_to("..")
    counts, _, notes = prepare(folder)
    assert sum(counts.values()) == 50
    assert notes == ["left out: dangling links 1, looping links 1"] or notes == [
        "left out: looping links 1, dangling links 1"
    ]


@pytest.mark.parametrize("inside", ["cat", "train/cat"])
def test_digest_folder_notices_changes_behind_links(inside, tmp_path):
    make_images(tmp_path / "away", "cat")
    link = tmp_path / "d" / inside
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "away/cat")
    first = digest_folder(tmp_path / "d")
    assert digest_folder(tmp_path / "d") == first
    (tmp_path / "away/cat/new.png").write_bytes(b"")
    second = digest_folder(tmp_path / "d")
    os.utime(tmp_path / "away/cat/new.png", (0, 0))
    assert len({first, second, digest_folder(tmp_path / "d")}) == 3


ODD = ["Screenshot 9.22\u202fPM", "a\u00a0b", "a\u3000b", "\u0645\u06cc\u200c\u0634\u0648\u062f",
       "\U0001fae9", "\ufeffa", "tab\tin", "a\u200db"]  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_odd_names_of_images_classes_and_parents_are_kept(odd, prepare, tmp_path):
    folder = tmp_path / odd
    make_images(folder, "cat", odd)
    os.rename(folder / "cat/000.png", folder / f"cat/{odd}.png")
    (folder / "cat/Icon\r").write_text("")  # macOS makes it
    (folder / os.fsdecode(b"\xff.txt")).write_text("")
    counts, classes, _ = prepare(folder)
    assert sum(counts.values()) == 40 and set(classes) == {"cat", unicodedata.normalize("NFC", odd)}


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", os.fsdecode(b"a\xffb")])
def test_names_that_cannot_be_kept_are_refused_at_once(bad, prepare, tmp_path):
    make_images(tmp_path / "d", "cat", "dog")
    for name in ("cat/000", "dog/001"):
        os.rename(tmp_path / f"d/{name}.png", tmp_path / f"d/{name}{bad}.png")
    with pytest.raises(
        ForetuneError, match=r"rename 'cat/000.*', 'dog/001.*: a name must be UTF-8"
    ):
        prepare(tmp_path / "d")
    os.rename(tmp_path / "d/cat", tmp_path / "d" / bad)
    with pytest.raises(ForetuneError, match=r"rename 'a.{1,6}b': a name must be"):
        prepare(tmp_path / "d")


def test_class_names_are_compared_in_one_unicode_form(prepare, tmp_path):
    composed, apart = "k\u00f6ter", "ko\u0308ter"
    make_images(tmp_path / "d/train", composed, "cat")
    make_images(tmp_path / "d/test", apart, "cat", n=8)
    counts, classes, _ = prepare(tmp_path / "d")
    assert counts["test"] == 16 and classes == ["cat", composed]
    make_images(tmp_path / "shift", apart)
    make_images(tmp_path / "shift", "cat")
    spec = {"folder": str(tmp_path / "shift")}
    assert prepare_shifted_test("s", spec, tmp_path / "out", tmp_path / "s")["splits"]
    make_images(tmp_path / "both", composed, apart, "cat")
    with pytest.raises(ForetuneError, match=r"two classes have the same name: \['köter'\]"):
        prepare(tmp_path / "both")


def test_classes_are_renamed_by_the_folders_names(prepare, tmp_path):
    make_images(tmp_path / "d", "blue_jay", "crow")
    for key in ("blue_jay", "blue jay"):
        assert prepare(tmp_path / "d", classes={key: "jay"})[1] == ["jay", "crow"]
    with pytest.raises(ForetuneError, match=r"\['bluejay'\]; it has blue jay, crow"):
        prepare(tmp_path / "d", classes={"bluejay": "jay"})


def test_blank_class_names_are_refused(prepare, tmp_path):
    make_images(tmp_path / "d", "_", "crow")
    with pytest.raises(ForetuneError, match=r"a class needs a name that is not blank: \[''\]"):
        prepare(tmp_path / "d")
    assert prepare(tmp_path / "d", classes={"_": "none"})[1] == ["none", "crow"]


def test_a_list_of_classes_follows_the_numbers_of_folders(prepare, tmp_path):
    make_images(tmp_path / "d", *map(str, range(11)), n=5)
    names = [f"number {i}" for i in range(11)]
    _, classes, notes = prepare(tmp_path / "d", classes=names)
    assert classes == names and "order of their numbers: 0 is number 0" in notes[0]
    ids = read_split(tmp_path / "out", "test").select(["id", "label"]).to_pylist()
    assert all(int(row["id"].split("/")[0]) == row["label"] for row in ids)
    assert read_manifest(tmp_path / "out")["source_classes"][10] == "10"
    make_images(tmp_path / "words", *(f"class{i}" for i in range(11)), n=5)
    assert (
        "alphabetical order: class0 is number 0, class1 is number 1, class10 is number 2"
        in (prepare(tmp_path / "words", classes=names)[2][0])
    )


def test_rare_classes_are_named_with_how_many_images_they_need(prepare, tmp_path):
    make_images(tmp_path / "rare", *(f"c{i:02}" for i in range(60)), n=2)
    with pytest.raises(ForetuneError, match=r"3 of each class \(fewer have 60 of 60: c00, c01"):
        prepare(tmp_path / "rare")
    make_images(tmp_path / "few", "a", "b", n=5)
    with pytest.raises(ForetuneError, match="at least 12 images"):
        prepare(tmp_path / "few")
    make_images(tmp_path / "one", "a", "b", n=20)
    make_images(tmp_path / "one", "c", n=1)
    notes = prepare(tmp_path / "one")[2]
    assert notes[0].startswith("no test image of 1 of 3 classes: c; a class needs 2 images")
