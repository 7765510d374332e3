"""Which classes are taken for which: counts among the most confused classes of each test."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from foretune.files import ForetuneError
from foretune.tables import read_metadata

CLASSES = 8  # of a test, at most: as many as a matrix on a telephone holds
KEY = ["model", "method", "evaluated_on", "split"]
CONFUSIONS = [*KEY, "class", "predicted", "n", "class_n", "share"]


def most_confused(counts: np.ndarray, most: int = CLASSES) -> np.ndarray:
    """The classes of the most frequent confusions, of a matrix (C, C) of true x predicted.

    Pairs are taken by how often either is taken for the other, until `most` classes are found;
    a pair that would be one class too many is skipped. Returns ascending rows; empty where all
    predictions are right.
    """
    either = np.triu(counts + counts.T, 1)
    first, second = np.nonzero(either)
    chosen: set[int] = set()
    for pair in np.argsort(-either[first, second], kind="stable"):
        grown = chosen | {int(first[pair]), int(second[pair])}
        if len(grown) <= most:
            chosen = grown
        if len(chosen) == most:
            break
    return np.array(sorted(chosen), dtype=int)


def count_pairs(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """The matrix (C, C) of how many images of a class, in rows, were given each class."""
    pairs = np.bincount(labels * classes + predicted, minlength=classes**2)
    return pairs.reshape(classes, classes)


def tabulate_confusions(
    outcomes: pd.DataFrame, predictions: Path, classes: dict[str, list[str]]
) -> pd.DataFrame:
    """Counts of (class, predicted) among the most confused classes of each model and test.

    Of the zero-shot models on every test, and of the tuned ones on the tests of their own task; a
    row for each pair that occurs. share: n over class_n, the test images of the class.
    outcomes: the study's; predictions: the folder of the files that they name; classes: dataset
    -> its classes' names.

    Tests whose predictions were deleted are left out, and printed.

    Raises ForetuneError, naming the file, where predictions are damaged or not of these classes.
    """
    own = outcomes.trained_on.isna() | (outcomes.trained_on == outcomes.evaluated_on)
    rows, lost = [], 0
    for test in outcomes[own & (outcomes.wise_ft.fillna(1) == 1)].to_dict("records"):
        names, path = classes[test["evaluated_on"]], Path(predictions) / test["predictions"]
        if not path.exists():
            lost += 1
            continue
        read_metadata(path)  # names a damaged file
        table = pq.read_table(path, columns=["label", "predicted"])
        pair = np.stack([column.to_numpy() for column in table.columns]).astype(np.int64)
        if pair.size and not 0 <= pair.min() <= pair.max() < len(names):
            raise ForetuneError(
                f"{path}: a class out of range for {test['evaluated_on']}, which has {len(names)}; "
                "delete the file and run again"
            )
        counts = count_pairs(*pair, len(names))
        some, totals = most_confused(counts), counts.sum(axis=1)
        rows += [
            {name: test[name] for name in KEY}
            | {"class": names[i], "predicted": names[j], "n": int(counts[i, j]),
               "class_n": int(totals[i]), "share": counts[i, j] / totals[i]}
            for i in some for j in some if counts[i, j]
        ]  # fmt: skip
    if lost:
        print(f"confusions: {lost} tests are left out, whose files in {predictions} are gone")
    frame = pd.DataFrame(rows, columns=CONFUSIONS)
    return frame.astype({"n": "int64", "class_n": "int64", "share": float})
