"""Embedding a dataset in shards, as several GPUs would."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from checkout import CLIP_MINI, ROOT
from foretune.core.errors import ForetuneError
from foretune.core.parquet import read_metadata, write_parquet
from foretune.data.prepare import prepare_dataset
from foretune.encoders.cache import read_embeddings
from foretune.encoders.encode import embed_captions, embed_images
from foretune.encoders.shards import join_shards, read_rows, shard_rows
from foretune.encoders.streams import open_embedding_cache
from foretune.measures.compute import MeasureOptions, measure_task
from smoke import jobs, run

SHARDS = 3


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """A folder with a `dataset/` of 634 + 70 + 64 images, embedded in `whole/` and `parts/`."""
    folder = tmp_path_factory.mktemp("shards")
    source = ROOT / "resources/mini/mnist.parquet"
    table = pq.read_table(source).take([*range(704), *range(2000, 2064)])
    write_parquet(table, folder / "source.parquet", read_metadata(source))
    prepare_dataset("mnist", {"parquet": folder / "source.parquet"}, folder / "dataset", seed=0)
    embed_images(CLIP_MINI, folder / "dataset", folder / "whole")
    embed_captions(CLIP_MINI, folder / "dataset", None, folder / "whole/text.parquet")
    for k in range(SHARDS):
        part = folder / f"parts/{k}"
        embed_images(CLIP_MINI, folder / "dataset", part, shard=(k, SHARDS))
    return folder


def parts(folder):
    return [folder / str(k) for k in range(SHARDS)]


def test_join_shards_gives_the_caches_of_the_whole_dataset(task, tmp_path):
    join_shards(parts(task / "parts"), tmp_path)
    for name in ("train", "val", "test", "own_text"):
        whole, joined = (read_embeddings(folder / f"{name}.parquet") for folder in
                         (task / "whole", tmp_path))  # fmt: skip
        assert np.array_equal(whole.vectors, joined.vectors), name
        assert whole.metadata == joined.metadata
        assert all(np.array_equal(whole.columns[key], joined.columns[key]) for key in whole.columns)
    shutil.copy(task / "whole/text.parquet", tmp_path)
    digest = json.loads((task / "dataset/dataset.json").read_text())["digest"]
    whole, joined = (
        measure_task(
            open_embedding_cache(folder, "train", digest)[0], 0, MeasureOptions(bootstrap=20)
        )
        for folder in (task / "whole", tmp_path)
    )
    assert whole == joined and whole["n"] == 634


def test_join_shards_gives_the_pooled_outputs_of_the_whole_dataset(task, tmp_path):
    embed_images(CLIP_MINI, task / "dataset", tmp_path / "whole", pooled=True)
    for k, part in enumerate(parts(tmp_path)):
        embed_images(CLIP_MINI, task / "dataset", part, shard=(k, SHARDS), pooled=True)
    join_shards(parts(tmp_path), tmp_path / "joined")
    names = sorted(path.name for path in (tmp_path / "joined").iterdir())
    assert names == ["test.parquet", "train.parquet", "val.parquet"]
    for name in names:
        whole, joined = (read_embeddings(tmp_path / f"{folder}/{name}", kind="pooled")
                         for folder in ("whole", "joined"))  # fmt: skip
        assert np.array_equal(whole.vectors, joined.vectors)
        assert whole.metadata == joined.metadata


def test_shard_rows_are_disjoint_and_complete(task):
    rows = [read_metadata(part / "train.parquet")["shard"] for part in parts(task / "parts")]
    assert rows == [[0, 256, 634], [256, 512, 634], [512, 634, 634]]
    assert [shard_rows(64, k, SHARDS) for k in range(SHARDS)] == [(0, 0), (0, 0), (0, 64)]
    assert [shard_rows(1_281_167, k, 8) for k in (0, 7)] == [(0, 160_000), (1_121_024, 1_281_167)]


def test_read_rows_crosses_row_groups(tmp_path):
    table = pq.read_table(ROOT / "resources/mini/mnist.parquet").slice(0, 1000)
    table = table.append_column("id", [[str(i) for i in range(1000)]])
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=300)
    blocks = list(read_rows(tmp_path / "x.parquet", 256, 901))
    assert [len(block) for block in blocks] == [256, 256, 133]
    assert [i for block in blocks for i in block["id"].to_pylist()] == list(
        map(str, range(256, 901))
    )


def test_join_shards_refuses_shards_that_do_not_belong_together(task, tmp_path):
    ordered = parts(task / "parts")
    with pytest.raises(ForetuneError, match=r"1/test\.parquet: begins at row 0 instead of 64"):
        join_shards([ordered[0], ordered[2], ordered[1]], tmp_path)
    with pytest.raises(ForetuneError, match=r"1/test\.parquet: ends at row 0 of 64"):
        join_shards(ordered[:2], tmp_path)
    shutil.copytree(ordered[1], tmp_path / "other")
    path = tmp_path / "other/train.parquet"
    write_parquet(pq.read_table(path), path, read_metadata(path) | {"weights": "others"})
    with pytest.raises(ForetuneError, match=r"other/train\.parquet: made from something else"):
        join_shards([ordered[0], tmp_path / "other", ordered[2]], tmp_path)


def test_embed_shard_runs_again_only_for_a_lost_shard(checkout):
    config = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    config["datasets"] = {"digits": {"parquet": "resources/mini/digits.parquet", "shards": 2}}
    (checkout / "sharded.yaml").write_text(yaml.safe_dump(config))
    folder = "results/embeddings/clip_mini/digits"
    study = ["--study", "sharded.yaml", "--notemp", f"{folder}/train.parquet"]
    expected = {"prepare_dataset": 1, "embed_shard": 2, "join_shards": 1}
    assert jobs(run(checkout, *study)) == expected
    joined = (checkout / folder / "train.parquet").read_bytes()
    # The state after a kill in the middle of the second shard's job.
    (checkout / folder / "train.parquet").unlink()
    (checkout / folder / "shards/1-2/train.parquet").unlink()
    assert jobs(run(checkout, *study)) == {"embed_shard": 1, "join_shards": 1}
    assert (checkout / folder / "train.parquet").read_bytes() == joined
