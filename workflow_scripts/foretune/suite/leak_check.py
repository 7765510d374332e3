"""Check that no test image of a bundled task was in the pretraining corpus.

The corpus is too large to bundle, but its index is bundled: where each picture comes from
("set:name", or "font family:character") and a digest of its pixels. A test picture is a leak if
its pixels or its origin are in the index.
"""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from foretune.core.parquet import write_parquet

DIGEST_SIDE = 32  # pixels, the input size of the mini encoders


def flatten(picture: Image.Image) -> Image.Image:
    """Return a picture of any size and mode as RGB on white, DIGEST_SIDE pixels wide and high."""
    picture = picture.convert("RGBA")
    paper = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(paper, picture).convert("RGB").resize((DIGEST_SIDE, DIGEST_SIDE))


def digest_picture(picture: Image.Image) -> bytes:
    """Return the first 8 bytes of the SHA-256 digest of the flattened pixels."""
    return hashlib.sha256(flatten(picture).tobytes()).digest()[:8]


def decode_pictures(encoded: list[bytes]) -> Iterator[Image.Image]:
    """Open encoded images one after the other."""
    return (Image.open(io.BytesIO(image)) for image in encoded)


def index_corpus(corpus: Path, output: Path) -> None:
    """Write the sorted distinct origins and pixel digests of a corpus."""
    table = pq.read_table(corpus, columns=["image", "origin"])
    digests = {digest_picture(picture) for picture in decode_pictures(table["image"].to_pylist())}
    origins = set(table["origin"].to_pylist()) - {"drawing"}
    index = pa.table({
        "kind": ["pixels"] * len(digests) + ["origin"] * len(origins),
        "key": [*(digest.hex() for digest in sorted(digests)), *sorted(origins)],
    })  # fmt: skip
    write_parquet(index, output, {"pictures": len(table)})


def find_leaks(index: Path, bundle: Path) -> list[str]:
    """Return one line for each test picture of a bundle that is in the corpus."""
    corpus_keys = set(pq.read_table(index)["key"].to_pylist())
    table = pq.read_table(bundle)
    rows = np.flatnonzero(np.array(table["split"].to_pylist()) != "train")
    images = [table["image"][int(row)].as_py() for row in rows]
    leaks = [
        f"{bundle.name}: row {row}: its pixels are in the corpus"
        for row, picture in zip(rows, decode_pictures(images), strict=True)
        if digest_picture(picture).hex() in corpus_keys
    ]
    if "origin" in table.column_names:
        leaks += [
            f"{bundle.name}: row {row}: {table['origin'][int(row)]} is in the corpus"
            for row in rows
            if table["origin"][int(row)].as_py() in corpus_keys
        ]
    return leaks
