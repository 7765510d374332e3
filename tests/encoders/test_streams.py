"""Embeddings from elsewhere: they are read correctly or refused with a clear message."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import forked
from checkout import ROOT
from foretune.core.errors import ForetuneError
from foretune.encoders.cache import write_embeddings
from foretune.encoders.streams import FileSource, open_embedding_cache
from foretune.measures.compute import MeasureOptions, compute_measures, measure_task

NO_INTERVALS = MeasureOptions(bootstrap=0)


def write_parquet(path, vectors, labels=None, name="embedding", kind=None, groups=1000):
    kind = kind or pa.list_(pa.from_numpy_dtype(vectors.dtype), vectors.shape[1])
    columns = {name: pa.array(list(vectors), type=kind)}
    if labels is not None:
        columns["label"] = labels
    pq.write_table(pa.table(columns), path, row_group_size=groups)


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(9000, 6)).astype(np.float32)
    texts, labels = rng.normal(size=(4, 6)).astype(np.float32), rng.integers(0, 4, 9000)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "texts.npy", texts)
    np.save(tmp_path / "labels.npy", labels)
    write_parquet(tmp_path / "images.parquet", images, labels)
    write_parquet(tmp_path / "texts.parquet", texts)
    pq.write_table(pa.table({"label": labels}), tmp_path / "labels.parquet")
    return tmp_path, images, texts, labels


@pytest.mark.parametrize("texts", ["texts.npy", "texts.parquet"])
@pytest.mark.parametrize(
    ("images", "labels"),
    [
        *itertools.product(["images.npy", "images.parquet"], ["labels.npy", "labels.parquet"]),
        ("images.parquet", None),  # it has a column of labels
    ],
)
def test_file_source_gives_the_same_measures_from_every_kind_of_file(files, images, texts, labels):
    folder, *arrays = files
    source = FileSource(folder / images, folder / texts, labels and folder / labels)
    values = measure_task(source, 0, NO_INTERVALS)["measures"]
    assert values == pytest.approx(compute_measures(*arrays), rel=1e-9)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float32())])
def test_file_source_takes_variable_lists_and_another_column_name(files, kind):
    folder, images, texts, labels = files
    write_parquet(folder / "x.parquet", images, labels, "clip_vector", kind)
    task = measure_task(FileSource(folder / "x.parquet", folder / "texts.npy"), 0, NO_INTERVALS)
    assert task["measures"] == pytest.approx(compute_measures(images, texts, labels), rel=1e-9)


def test_file_source_keeps_float16(files):
    folder, images, texts, labels = files
    write_parquet(folder / "x.parquet", images.astype(np.float16), labels)
    task = measure_task(FileSource(folder / "x.parquet", folder / "texts.npy"), 0, NO_INTERVALS)
    block, _ = next(FileSource(folder / "x.parquet", folder / "texts.npy").blocks())
    assert block.dtype == np.float16
    expected = compute_measures(images, texts, labels)
    assert task["measures"]["iimm"] == pytest.approx(expected["iimm"], abs=1e-5)


def spoil(folder, images, texts, labels, fault):
    """Return arguments of FileSource with one fault."""
    x, t, y = folder / "images.npy", folder / "texts.npy", folder / "labels.npy"
    if fault == "missing":
        x = folder / "none.parquet"
    elif fault == "not npy":
        x.write_text("1,2,3")
    elif fault == "not parquet":
        (x := folder / "images.parquet").write_text("1,2,3")
    elif fault == "pickled":
        np.save(x, np.array([{}, {}], dtype=object), allow_pickle=True)
    elif fault == "a vector":
        np.save(x, images[:, 0])
    elif fault == "widths":
        np.save(t, texts[:, :5])
    elif fault == "lengths":
        np.save(y, labels[:-1])
    elif fault == "fractions":
        np.save(y, labels / 2)
    elif fault == "no labels":
        y = None
    elif fault == "beyond":
        np.save(y, np.where(np.arange(9000) == 8500, 4, labels))
    elif fault == "minus one":
        np.save(y, np.where(np.arange(9000) == 8500, -1, labels))
    elif fault == "nan":
        images[8500, 1] = np.nan
        np.save(x, images)
    elif fault == "ragged":
        rows = [list(row) for row in images]
        rows[8500] = rows[8500][:3]
        table = {"embedding": pa.array(rows, pa.list_(pa.float32())), "label": labels}
        pq.write_table(pa.table(table), x := folder / "ragged.parquet")
    elif fault == "two columns":
        column = pa.array(list(images))
        pq.write_table(pa.table({"a": column, "b": column}), x := folder / "two.parquet")
    elif fault == "a null":
        rows = [list(row) for row in images]
        rows[8500] = None
        table = {"embedding": pa.array(rows, pa.list_(pa.float32(), 6)), "label": labels}
        pq.write_table(pa.table(table), x := folder / "null.parquet")
    elif fault == "no rows":
        np.save(x, images[:0])
    elif fault == "a cut header":
        x.write_bytes(x.read_bytes()[:30])
    elif fault == "an empty file":
        x.write_bytes(b"")
    elif fault == "an odd header":
        x.write_bytes(x.read_bytes().replace(b"'shape': (", b"'shape':((", 1))
    elif fault == "a damaged page":
        column = pa.array(list(images))
        pq.write_table(pa.table({"a": column, "label": labels}), x := folder / "page.parquet")
        x.write_bytes(b"PAR1" + b"\xff" * 60 + x.read_bytes()[64:])
        y = None
    elif fault == "a zero text":
        np.save(t, texts * (np.arange(4) != 3)[:, None])
    return x, t, y


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", r"none\.parquet: no such file"),
        ("not npy", r"images\.npy: not a readable \.npy file"),
        ("not parquet", r"images\.parquet: not a readable Parquet file"),
        ("pickled", r"images\.npy: not a readable \.npy file"),
        ("a vector", r"images\.npy: needs a matrix of floating numbers, not float32 of shape"),
        ("widths", r"images\.npy: 6 dimensions, but .*texts\.npy has 5"),
        ("lengths", r"labels\.npy: 8999 labels for 9000 rows of .*images\.npy"),
        ("fractions", r"labels\.npy: needs one dimension of whole numbers"),
        ("no labels", r"images\.npy: has no labels; give a file"),
        ("beyond", r"labels\.npy: row 8500: label 4 is not in 0\.\.3"),
        ("minus one", r"labels\.npy: row 8500: label -1 is not in 0\.\.3"),
        ("nan", r"images\.npy.*: row 8500 has a value that is not finite"),
        ("ragged", r"ragged\.parquet: row 8500 has 3 values"),
        ("two columns", r"two\.parquet: needs a column embedding .* \(has a, b\)"),
        ("a null", r"null\.parquet: a vector is missing in rows 8192 to 8999"),
        ("no rows", r"images\.npy: needs a matrix"),
        ("a cut header", r"images\.npy: not a readable \.npy file"),
        ("an empty file", r"images\.npy: not a readable \.npy file"),
        ("an odd header", r"images\.npy: not a readable \.npy file"),
        ("a damaged page", r"page\.parquet: not a readable Parquet file"),
        ("a zero text", r"texts\.npy.*: texts: row 3 is a zero vector"),
    ],
)
def test_file_source_names_the_file_and_the_fault(files, fault, message):
    with pytest.raises(ForetuneError, match=message):
        measure_task(FileSource(*spoil(*files, fault)), 0, NO_INTERVALS)


def test_open_embedding_cache_refuses_another_dataset_or_other_weights(tmp_path):
    for name in ("train", "text"):
        write_embeddings(
            tmp_path / f"{name}.parquet", np.eye(4, 3, dtype=np.float32) + 1,
            {"label": np.arange(4)}, {"dataset": "d", "weights": name},
        )  # fmt: skip
    with pytest.raises(ForetuneError, match=r"train\.parquet: made from another dataset"):
        open_embedding_cache(tmp_path, "train", "e")
    with pytest.raises(ForetuneError, match=r"text\.parquet: made from another weights"):
        open_embedding_cache(tmp_path, "train", "d")


def test_measure_embeddings_script_writes_json_and_reports_errors(files):
    folder = files[0]
    command = [ROOT / "workflow_scripts/measure_embeddings.py", "--name", "mine", "--seed", "0",
               "--images", folder / "images.npy", "--texts", folder / "texts.npy",
               "--options", '{"without": ["silhouette_euclidean"], "bootstrap": 16}',
               "--output", folder / "mine.json"]  # fmt: skip
    done = forked.run(*command)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "images.npy: has no labels" in done.stderr
    command += ["--labels", folder / "labels.npy"]
    done = forked.run(*command)
    assert done.returncode == 0, done.stderr
    task = json.loads((folder / "mine.json").read_text())
    assert task["embeddings"] == "mine" and task["n"] == 9000 and len(task["files"]) == 3
    assert "silhouette_euclidean" not in task["measures"] and "iimm" in task["measures"]
