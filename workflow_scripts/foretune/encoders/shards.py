"""Embedding a dataset in shards, one job per shard, and joining the shards' caches.

A shard is a contiguous range of each split's rows. It is read block by block, so that a job needs
no more memory for ImageNet than for MNIST.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from foretune.core.errors import ForetuneError
from foretune.core.files import atomic_write, link_or_copy
from foretune.core.parquet import read_metadata, read_table
from foretune.data.prepared import decode_image
from foretune.encoders.cache import write_embedding_table

# Rows that are prepared at once. Shards end at multiples of it, and it is a multiple of the
# encoder's batch size. The batches, and so all bits of the vectors, are then those of the dataset
# embedded without shards.
SHARD_BLOCK = 256


def shard_rows(n: int, shard: int, shards: int) -> tuple[int, int]:
    """Return the first row of a shard of n rows and the row after its last.

    The two are equal if the shard is empty.
    """
    blocks = -(-n // SHARD_BLOCK)
    start, stop = (min(n, k * blocks // shards * SHARD_BLOCK) for k in (shard, shard + 1))
    return start, stop


def prepare_rows(
    dataset: Path,
    split: str,
    preprocess: Callable[[Image.Image], torch.Tensor],
    start: int,
    stop: int,
) -> Iterator[np.ndarray]:
    """Yield the prepared images of rows start to stop, SHARD_BLOCK at a time.

    A block is (B, 3, H, W) uint8. Raises ForetuneError, which names the row, for an image that
    cannot be decoded.
    """

    def prepare(pair: tuple[str, bytes]) -> np.ndarray:
        return preprocess(decode_image(pair[1], f"{dataset}, {split}, {pair[0]}")).numpy()

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for rows in read_rows(Path(dataset) / f"{split}.parquet", start, stop):
            pairs = zip(rows["id"].to_pylist(), rows["image"].to_pylist(), strict=True)
            yield np.stack(list(pool.map(prepare, pairs)))


def read_rows(path: Path, start: int, stop: int) -> Iterator[pa.Table]:
    """Yield the ids and images of rows start to stop, SHARD_BLOCK rows at a time.

    Only the row groups that contain these rows are read.
    """
    file, offset, pending = pq.ParquetFile(path, pre_buffer=False), 0, None
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        low, high = max(start - offset, 0), min(stop - offset, rows)
        offset += rows
        if low >= high:
            continue
        table = file.read_row_group(group, ["id", "image"]).slice(low, high - low)
        pending = table if pending is None else pa.concat_tables([pending, table])
        while len(pending) >= SHARD_BLOCK:
            yield pending.slice(0, SHARD_BLOCK)
            pending = pending.slice(SHARD_BLOCK)
    if pending is not None and len(pending):
        yield pending


def join_shards(parts: list[Path], output: Path) -> None:
    """Join the caches of a dataset's shards into those of the whole dataset.

    parts: the folders of all shards, in order; output: the folder for the joined caches.

    Raises ForetuneError if a shard is missing or out of order, or if shards were made from
    different things.
    """
    for path in sorted(parts[0].glob("*.parquet")):
        files = [part / path.name for part in parts]
        if "shard" not in read_metadata(path):  # every shard has all captions
            with atomic_write(output / path.name) as temporary:
                temporary.unlink(missing_ok=True)
                link_or_copy(path, temporary)
            continue
        metadata = [read_metadata(file) for file in files]
        ranges = [shard_metadata.pop("shard") for shard_metadata in metadata]
        common, end = metadata[0], 0
        for file, shard_metadata, (start, stop, _) in zip(files, metadata, ranges, strict=True):
            if shard_metadata != common:
                raise ForetuneError(
                    f"{file}: made from something else than {files[0]}; delete both and run again"
                )
            if start != end:
                raise ForetuneError(f"{file}: begins at row {start} instead of {end}")
            end = stop
        total = ranges[0][2]
        if end != total:
            raise ForetuneError(f"{files[-1]}: ends at row {end} of {total}: a shard is missing")
        write_embedding_table(pa.concat_tables(map(read_table, files)), output / path.name, common)
