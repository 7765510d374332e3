"""The bundled tasks: their files, their rebuilding, and that the corpus has none of their tests."""

import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from checkout import ROOT
from foretune.core.parquet import read_metadata, write_parquet
from foretune.data.sources.local import read_parquet_source
from foretune.suite import drawn
from foretune.suite.bundles import encode_png
from foretune.suite.compare import compare_data, list_tasks
from foretune.suite.leak_check import find_leaks, index_corpus

MINI = ROOT / "resources/mini"


@pytest.mark.parametrize("bundle", [path.stem for path in list_tasks(MINI)])
def test_find_leaks_finds_no_bundled_test_image_in_the_corpus(bundle):
    assert find_leaks(MINI / "corpus_index.parquet", MINI / f"{bundle}.parquet") == []


def test_find_leaks_finds_a_picture_by_its_pixels_and_by_its_name(tmp_path):
    test = pq.read_table(MINI / "emoji.parquet").filter(pc.field("split") == "test")
    rows = [
        {"image": test["image"][0].as_py(), "origin": "another set:another name"},
        {"image": encode_png(np.zeros((40, 40, 3), np.uint8)),
         "origin": test["origin"][1].as_py()},
    ]  # fmt: skip
    write_parquet(pa.Table.from_pylist(rows), tmp_path / "corpus.parquet", {})
    index_corpus(tmp_path / "corpus.parquet", tmp_path / "index.parquet")
    leaks = find_leaks(tmp_path / "index.parquet", MINI / "emoji.parquet")
    assert len(leaks) == 2
    assert any("pixels" in leak for leak in leaks)
    assert any(rows[1]["origin"] in leak for leak in leaks)


def test_corpus_index_has_the_sets_of_the_package_list_and_none_that_a_task_is_made_from():
    dependencies = json.loads((MINI / "package.json").read_text())["dependencies"]
    keys = pq.read_table(MINI / "corpus_index.parquet").filter(pc.field("kind") == "origin")["key"]
    sets = {key.split(":")[0] for key in keys.to_pylist()}
    icons = {name for name in sets if not name.startswith("font ")}
    assert icons == {name.split("/")[1] for name in dependencies if "@iconify" in name}
    assert len(sets - icons) == sum("@fontsource" in name for name in dependencies)
    for kept_out in ("openmoji", "emojione-v1", "streamline-emojis", "fxemoji", "flag", "cif"):
        assert kept_out not in icons


def test_bundled_files_are_small_and_complete():
    total = sum(path.stat().st_size for path in MINI.rglob("*") if path.is_file())
    assert total < 40_000_000
    for path in list_tasks(MINI):
        assert path.stat().st_size < 1_500_000
        source = read_parquet_source(path)
        assert source.licence and source.source and "{}" in source.caption
        assert {label for _, _, label in source.rows["test"].read()} == set(
            range(len(source.classes))
        )


def read_pixels(path):
    images = pq.read_table(path, columns=["image"])["image"].to_pylist()
    return np.stack([np.asarray(Image.open(io.BytesIO(image)), float) for image in images])


def test_bundle_orientation_rebuilds_the_bundled_task(tmp_path):
    path, bundled = tmp_path / "orientation.parquet", MINI / "orientation.parquet"
    drawn.bundle_orientation(None, path, 0)
    columns = ["label", "split"]
    assert pq.read_table(path, columns=columns).equals(pq.read_table(bundled, columns=columns))
    assert read_metadata(path) == read_metadata(bundled)
    # Another version of Pillow may round or compress otherwise, by less than 2 of 255 levels.
    assert np.abs(read_pixels(path) - read_pixels(bundled)).mean() < 2


def test_compare_data_names_the_files_that_have_other_bytes(tmp_path):
    for folder in (tmp_path / "bundled", tmp_path / "rebuilt"):
        folder.mkdir()
        drawn.bundle_orientation(None, folder / "orientation.parquet", 0)
    shutil.copy(MINI / "digits.parquet", tmp_path / "bundled")
    (tmp_path / "rebuilt/digits.parquet").write_bytes(b"another")
    lines = compare_data(tmp_path / "rebuilt", tmp_path / "bundled").splitlines()
    assert "orientation.parquet: the same to the byte" in lines
    assert "digits.parquet: DIFFERENT" in lines
