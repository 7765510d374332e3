"""A dataset embedded in parts, by as many jobs, and the parts joined.

A part (a shard) is a run of each split's rows. It is read a block at a time, so that a job needs
no more memory for ImageNet than for MNIST.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from foretune.core.errors import ForetuneError
from foretune.core.files import atomic_write, link_or_copy
from foretune.core.parquet import read_metadata
from foretune.data.prepared import decode_image
from foretune.encoders.cache import write_embedding_table

# Rows that are prepared at once. Shards end at multiples of it, and it is one of the encoder's
# batches, so that every batch, and every bit of the vectors, is that of the whole dataset.
SHARD_BLOCK = 256


def shard_rows(n: int, shard: int, shards: int) -> tuple[int, int]:
    """First row of a shard of n rows, and the one after its last; the same where it has none."""
    blocks = -(-n // SHARD_BLOCK)
    first, last = (min(n, each * blocks // shards * SHARD_BLOCK) for each in (shard, shard + 1))
    return first, last


def prepare_rows(
    dataset: Path, split: str, preprocess, start: int, stop: int
) -> Iterator[np.ndarray]:
    """The images of rows start to stop, BLOCK at a time: (B, 3, H, W) uint8.

    Raises ForetuneError, which names the row, for an image that cannot be decoded.
    """

    def prepare(pair: tuple[str, bytes]) -> np.ndarray:
        return preprocess(decode_image(pair[1], f"{dataset}, {split}, {pair[0]}")).numpy()

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for rows in read_rows(Path(dataset) / f"{split}.parquet", start, stop):
            pairs = zip(rows["id"].to_pylist(), rows["image"].to_pylist(), strict=True)
            yield np.stack(list(pool.map(prepare, pairs)))


def read_rows(path: Path, start: int, stop: int) -> Iterator[pa.Table]:
    """Ids and images of rows start to stop, BLOCK at a time; no other row groups are read."""
    file, offset, held = pq.ParquetFile(path, pre_buffer=False), 0, None
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        low, high = max(start - offset, 0), min(stop - offset, rows)
        offset += rows
        if low >= high:
            continue
        some = file.read_row_group(group, ["id", "image"]).slice(low, high - low)
        held = some if held is None else pa.concat_tables([held, some])
        while len(held) >= SHARD_BLOCK:
            yield held.slice(0, SHARD_BLOCK)
            held = held.slice(SHARD_BLOCK)
    if held is not None and len(held):
        yield held


def join_shards(parts: list[Path], output: Path) -> None:
    """Join the folders of all of a dataset's shards, in order, into one as without shards.

    Raises ForetuneError where a shard is missing, or was made from something else.
    """
    for path in sorted(parts[0].glob("*.parquet")):
        files = [part / path.name for part in parts]
        if "shard" not in read_metadata(path):  # captions, which every shard has
            with atomic_write(output / path.name) as beside:
                beside.unlink(missing_ok=True)
                link_or_copy(path, beside)
            continue
        described = [read_metadata(file) for file in files]
        rows = [metadata.pop("shard") for metadata in described]
        facts, end = described[0], 0
        for file, metadata, (start, stop, _) in zip(files, described, rows, strict=True):
            if metadata != facts:
                raise ForetuneError(f"{file}: not made from what {files[0]} is; delete both")
            if start != end:
                raise ForetuneError(f"{file}: begins at row {start}, but should at {end}")
            end = stop
        if end != rows[0][2]:
            raise ForetuneError(f"{files[-1]}: ends at row {end} of {rows[0][2]}: one is missing")
        write_embedding_table(
            pa.concat_tables(map(pq.read_table, files)), output / path.name, facts
        )
