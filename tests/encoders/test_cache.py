"""Embedding caches: written and read without a copy, and refused if they do not match."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from checkout import CLIP_MINI
from foretune.core.errors import ForetuneError
from foretune.encoders.cache import (
    normalize_rows,
    read_embeddings,
    read_task_embeddings,
    write_embeddings,
)
from foretune.encoders.loading import encode_text, load_model


@pytest.fixture
def cache(tmp_path):
    path = tmp_path / "train.parquet"
    vectors = np.random.default_rng(0).normal(size=(100_000, 8)).astype(np.float32)
    columns = {"id": [str(i) for i in range(len(vectors))], "label": np.arange(len(vectors))}
    write_embeddings(path, vectors, columns, {"weights": "w1", "dataset": "d1"})
    return path, vectors


def test_read_embeddings_returns_what_was_written_without_a_copy(cache, monkeypatch):
    path, vectors = cache
    tables = []
    read_table = pq.read_table
    monkeypatch.setattr(
        pq, "read_table", lambda *a, **b: tables.append(read_table(*a, **b)) or tables[-1]
    )
    read = read_embeddings(path, weights="w1", dataset="d1")
    assert np.array_equal(read.vectors, vectors)
    assert read.columns["label"][-1] == len(vectors) - 1
    assert not read.vectors.flags.owndata and not read.vectors.flags.writeable
    # The array is a view of the memory that Arrow read the file into.
    buffer = tables[0]["embedding"].chunk(0).flatten().buffers()[1]
    assert read.vectors.ctypes.data == buffer.address


def test_read_embeddings_refuses_stale_and_foreign_files(cache, tmp_path):
    path, _ = cache
    with pytest.raises(ForetuneError, match=r"train\.parquet: made from another weights"):
        read_embeddings(path, weights="w2")
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), foreign)
    with pytest.raises(ForetuneError, match=r"foreign\.parquet: not written by foretune"):
        read_embeddings(foreign)
    (tmp_path / "text.parquet").write_text("id,label\n")
    with pytest.raises(ForetuneError, match="not a readable Parquet file"):
        read_embeddings(tmp_path / "text.parquet")
    with pytest.raises(ForetuneError, match="no such file"):
        read_embeddings(tmp_path / "none.parquet")


def test_read_embeddings_refuses_a_truncated_file(cache):
    path, _ = cache
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ForetuneError, match="not a readable Parquet file"):
        read_embeddings(path)


def test_read_task_embeddings_refuses_captions_of_other_weights(tmp_path):
    vectors = np.eye(3, dtype=np.float32)
    provenance = {"dataset": "d"}
    write_embeddings(tmp_path / "train.parquet", vectors, {}, {**provenance, "weights": "a"})
    write_embeddings(tmp_path / "text.parquet", vectors, {}, {**provenance, "weights": "b"})
    with pytest.raises(ForetuneError, match=r"text\.parquet: made from another weights"):
        read_task_embeddings(tmp_path, "train", "d")


def test_write_embeddings_names_a_row_that_is_not_finite(tmp_path):
    vectors = np.ones((5, 4), np.float32)
    vectors[3, 1] = np.nan
    with pytest.raises(ForetuneError, match="row 3"):
        write_embeddings(tmp_path / "x.parquet", vectors, {}, {})
    assert list(tmp_path.iterdir()) == []


def test_normalize_rows_returns_unit_rows_in_float64():
    rows = normalize_rows(np.array([[3, 4], [0, 2]], np.float32))
    assert rows.dtype == np.float64
    assert np.allclose(rows, [[0.6, 0.8], [0, 1]])


def test_caption_cache_holds_raw_vectors_of_the_bundled_encoder(small_task):
    texts = read_embeddings(small_task / "embeddings/text.parquet")
    assert texts.columns["captions"][3].tolist() == ['a photo of the number: "3"']
    assert not np.allclose(np.linalg.norm(texts.vectors, axis=1), 1)
    model, _, tokenizer = load_model(CLIP_MINI)
    # encode_text cuts the context after the longest caption; the result is equal up to rounding.
    captions = np.concatenate(texts.columns["captions"])
    tokens = tokenizer([*captions, "a much longer caption than the others are"])
    whole = model.encode_text(tokens).detach().numpy()
    assert np.allclose(encode_text(model, tokens).detach().numpy(), whole, atol=1e-5)
    assert np.allclose(texts.vectors, whole[:10], atol=1e-5)
