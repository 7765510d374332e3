"""Pictures that no model can learn from, and those that cannot be decoded."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from foretune.core.errors import ForetuneError
from foretune.data.notes import read_notes
from foretune.data.prepare import prepare_dataset
from foretune.data.prepared import decode_image
from foretune.data.sources.base import ImageRow, ImageRows
from foretune.data.write import RowStream, write_dataset
from foretune.report.thumbnails import describe_dataset


def make_noise(seed, side=8):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def write(folder, pictures):
    """Write pictures by their paths below a folder."""
    for name, picture in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / name)


def prepare(folder, tmp_path):
    prepare_dataset("d", {"folder": str(folder)}, tmp_path / "out", seed=0)
    return read_notes(tmp_path / "out")


def test_distinct_pictures_get_no_note(tmp_path):
    write(tmp_path / "d", {f"{'ab'[i % 2]}/{i}.png": make_noise(i) for i in range(40)})
    assert prepare(tmp_path / "d", tmp_path) == []


def test_pictures_of_one_colour_are_counted(tmp_path):
    black = {f"{name}/{i}.png": Image.new("RGB", (8, 8)) for name in "ab" for i in range(30)}
    write(tmp_path / "d", black)
    notes = prepare(tmp_path / "d", tmp_path)
    assert notes[0] == "60 of 60 images have one colour only"
    assert notes[1].startswith("60 of 60 images occur in several classes") and "a, b" in notes[1]
    assert describe_dataset(tmp_path / "out/dataset.json")["notes"] == notes  # in the report


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_of_pixels_is_described(mode, tmp_path):
    suffix = ".tif" if mode == "CMYK" else ".png"
    write(
        tmp_path / "d", {f"{'ab'[i % 2]}/{i}{suffix}": Image.new(mode, (8, 8)) for i in range(20)}
    )
    assert prepare(tmp_path / "d", tmp_path)[0] == "20 of 20 images have one colour only"


def test_the_same_pictures_in_two_classes_and_in_train_and_test_are_counted(tmp_path):
    pictures = {f"train/{name}/{i}.png": make_noise(i) for name in "ab" for i in range(10)}
    pictures |= {f"train/c/{i}.png": make_noise(50 + i) for i in range(10)}
    # The other compression and name do not matter: pixels are compared.
    pictures |= {f"test/c/other{i}.bmp": make_noise(50 + i) for i in range(4)}
    pictures |= {f"test/c/new{i}.png": make_noise(90 + i) for i in range(4)}
    write(tmp_path / "d", pictures)
    shared, leaked, copies = prepare(tmp_path / "d", tmp_path)[1:]
    assert shared.startswith("20 of 38 images occur in several classes") and shared[-4:] == "a, b"
    assert leaked.startswith("4 of 8 test images are also among the training images")
    assert copies == "14 of 38 images are copies of another one"


def test_ids_that_occur_twice_are_counted(tmp_path):
    encoded = []
    for i in range(30):
        buffer = io.BytesIO()
        make_noise(i).save(buffer, "PNG")
        encoded.append(ImageRow(f"key{i % 29}", buffer.getvalue(), i // 4 % 2))
    rows = ImageRows([row.label for row in encoded], lambda: iter(encoded))
    splits = np.array(["train", "train", "val", "test"] * 7 + ["train", "train"], object)
    facts = {"name": "d", "split": "test", "classes": ["a", "b"], "source_classes": ["a", "b"],
             "caption": "a {}", "licence": "-", "source": "-"}  # fmt: skip
    stream = RowStream(rows, splits, ["a", "b"], in_test_pool=True)
    write_dataset(facts, [stream], ("train", "val", "test"), tmp_path)
    assert read_notes(tmp_path) == ["1 of 30 images have the name of another one"]
    assert json.loads((tmp_path / "notes.json").read_text())["left_out"] == {}


def test_all_broken_images_are_named_in_one_run(tmp_path, capsys):
    write(tmp_path / "d", {f"{'ab'[i % 2]}/{i:02}.png": make_noise(i) for i in range(200)})
    (tmp_path / "d/a/00.png").write_bytes(b"no image")
    (tmp_path / "d/b/01.png").unlink()
    (tmp_path / "d/b/01.png").symlink_to("/proc/self/mem")  # a file that cannot be read
    Image.new("I;16", (4, 4)).save(tmp_path / "d/b/03.png")
    with pytest.raises(ForetuneError) as caught:
        prepare(tmp_path / "d", tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == "dataset d: 3 images cannot be used:" and len(lines) == 4
    for name, reason in (("a/00.png", "not a readable"), ("b/01", "cannot be read"), ("b/03", "8")):
        assert any(name in line and reason in line for line in lines)
    assert capsys.readouterr().out.count("b/03.png: more than 8 bits") == 1  # as soon as it is met
    assert not (tmp_path / "out/dataset.json").exists()


def encode(picture, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_long_texts_and_profiles_do_no_harm():
    text = PngInfo()
    text.add_text("k", "x" * 3_000_000, zip=True)
    text.add_itxt("parameters", "x" * 80_000_000, zip=True)
    for options in ({"pnginfo": text}, {"icc_profile": bytes(2_000_000)}):
        assert decode_image(encode(make_noise(0), **options), "a.png").size == (8, 8)


@pytest.mark.parametrize("size", [(13400, 13400), (1, 60_000), (60_000, 2)])
def test_pictures_that_are_too_large_or_too_long_are_refused_by_name(size):
    encoded = encode(Image.new("1", size, 1))
    with pytest.raises(ForetuneError, match=r"a\.png: .*(scale it down|cut it)"):
        decode_image(encoded, "a.png")


@pytest.mark.filterwarnings("error")
def test_large_scans_are_read_without_a_warning():
    assert decode_image(encode(Image.new("1", (12_000, 9_000), 1)), "a.png").size == (12_000, 9_000)


def test_formats_that_are_programs_are_refused_before_they_run():
    """Pillow would give the PostScript of an EPS file to Ghostscript."""
    encoded = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    with pytest.raises(ForetuneError, match="x: EPS is drawn by a program; convert it to PNG"):
        decode_image(encoded, "x")
