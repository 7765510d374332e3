"""Find the images that a forecast page shows: of confused classes, and of doubtful labels."""

from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd

from foretune.core.errors import ForetuneError
from foretune.core.parquet import read_table
from foretune.report.thumbnails import read_data_uris

MOST_PAIRS = 6
PAIR_SAMPLES = 3  # per class of a pair
MOST_DOUBTFUL = 12


class ConfusedPair(TypedDict):
    """A class that the probe takes for another one.

    n: images of `given` that it takes for `taken`; of: all images of `given`; confused: some of
    the n images as data URIs; others: some
    images of the class `taken`.
    """

    given: str
    taken: str
    n: int
    of: int
    confused: list[str]
    others: list[str]


class DoubtfulImage(TypedDict):
    """An image whose label the probe contradicts."""

    id: str
    uri: str
    given: str
    probe: str


def describe_images(
    images: pd.DataFrame, train: Path, classes: list[str]
) -> tuple[list[ConfusedPair], list[DoubtfulImage]]:
    """Return the most frequent confusions of a probe, and the labels that it contradicts most.

    Args:
        images: one row per training image: id, label, probe (indices of classes) and margin, the
            score of the label minus the highest other one.
        train: Parquet file of the training images.
        classes: names of the classes.

    Raises:
        ForetuneError: an image is missing in `train`, or cannot be decoded.
    """
    wrong = images[images.probe != images.label]
    pairs = find_pairs(images, wrong)
    doubtful = wrong.sort_values("margin", kind="stable").head(MOST_DOUBTFUL)
    shown = [doubtful.id, *(frame.id for *_, confused, others in pairs
                            for frame in (confused, others))]  # fmt: skip
    uris = read_uris_by_id(train, pd.concat(shown).unique())

    sizes = images.label.value_counts()
    described: list[ConfusedPair] = [
        {"given": classes[given], "taken": classes[taken], "n": n, "of": int(sizes[given]),
         "confused": [uris[name] for name in confused.id],
         "others": [uris[name] for name in others.id]}
        for given, taken, n, confused, others in pairs
    ]  # fmt: skip
    return described, [
        {"id": name, "uri": uris[name], "given": classes[label], "probe": classes[probe]}
        for name, label, probe in zip(doubtful.id, doubtful.label, doubtful.probe, strict=True)
    ]


def find_pairs(
    images: pd.DataFrame, wrong: pd.DataFrame
) -> list[tuple[int, int, int, pd.DataFrame, pd.DataFrame]]:
    """Return the most frequent pairs of label and probe's class, with images of both classes.

    wrong: the rows of `images` in which the two differ. Each pair comes with their number, a few
    of these rows, and a few of those rows of the probe's class that the probe recognises best.
    """
    counts = wrong.groupby(["label", "probe"]).size().sort_values(ascending=False, kind="stable")
    pairs = []
    for (given, taken), n in counts.head(MOST_PAIRS).items():
        confused = wrong[(wrong.label == given) & (wrong.probe == taken)]
        others = images[images.label == taken].sort_values("margin", kind="stable")
        clear = others[len(others) // 2 :]
        pairs.append((given, taken, int(n), spread_rows(confused), spread_rows(clear)))
    return pairs


def spread_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return up to PAIR_SAMPLES rows, spread evenly."""
    return rows.iloc[np.linspace(0, len(rows) - 1, min(PAIR_SAMPLES, len(rows))).astype(int)]


def read_uris_by_id(train: Path, ids: np.ndarray) -> dict[str, str]:
    """Return images of a split as data URIs by their ids."""
    names = read_table(train, ["id"])["id"].to_pandas()
    rows = names[names.isin(ids)]
    missing = set(ids) - set(rows)
    if missing:
        raise ForetuneError(
            f"{train}: has no image {sorted(missing)[0]}, which the rehearsal lists; delete "
            "results/rehearsals and run again"
        )
    uris = read_data_uris(train, rows.index)
    return {name: uris[row] for row, name in rows.items()}
