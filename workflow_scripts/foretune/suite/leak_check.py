"""Proof that no test image of a bundled task was in the pretraining corpus.

The corpus itself is too large to bundle, so its index is: where each picture comes from
(set:name, or font family:character) and a digest of its pixels. A test picture is a leak where
its pixels or its origin are in the index.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from foretune.core.parquet import write_parquet

DIGEST_SIDE = 32  # of the mini encoders' input


def flatten(picture: Image.Image) -> Image.Image:
    """A picture of any size and mode as a model sees it at its plainest: 32 x 32, on white."""
    picture = picture.convert("RGBA")
    paper = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(paper, picture).convert("RGB").resize((DIGEST_SIDE, DIGEST_SIDE))


def digest_picture(picture: Image.Image) -> bytes:
    return hashlib.sha256(flatten(picture).tobytes()).digest()[:8]


def read_pictures(encoded: list[bytes]):
    return (Image.open(io.BytesIO(image)) for image in encoded)


def index_corpus(corpus: Path, output: Path) -> None:
    """Write the sorted distinct origins and pixel digests of a corpus."""
    table = pq.read_table(corpus, columns=["image", "origin"])
    digests = {digest_picture(picture) for picture in read_pictures(table["image"].to_pylist())}
    origins = set(table["origin"].to_pylist()) - {"drawing"}
    index = pa.table({
        "kind": ["pixels"] * len(digests) + ["origin"] * len(origins),
        "key": [*(digest.hex() for digest in sorted(digests)), *sorted(origins)],
    })  # fmt: skip
    write_parquet(index, output, {"pictures": len(table)})


def find_leaks(index: Path, bundle: Path) -> list[str]:
    """What of a bundle's test split is in the corpus: one line a picture, none if all is well."""
    keys = pq.read_table(index)
    known = set(keys["key"].to_pylist())
    table = pq.read_table(bundle)
    rows = np.flatnonzero(np.array(table["split"].to_pylist()) != "train")
    images = [table["image"][int(row)].as_py() for row in rows]
    leaks = [
        f"{bundle.name}: row {row}: its pixels are in the corpus"
        for row, picture in zip(rows, read_pictures(images), strict=True)
        if digest_picture(picture).hex() in known
    ]
    if "origin" in table.column_names:
        leaks += [
            f"{bundle.name}: row {row}: {table['origin'][int(row)]} is in the corpus"
            for row in rows
            if table["origin"][int(row)].as_py() in known
        ]
    return leaks
