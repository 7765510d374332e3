"""Read pilots: a few steps of fine-tuning, whose accuracy is a predictor of the whole."""

from pathlib import Path

import pandas as pd

from foretune.core.entries import PilotFile
from foretune.core.files import read_json

PILOT_ACCURACY = "pilot_accuracy"
PILOT_COLUMNS = (PILOT_ACCURACY, "pilot_steps", "pilot_seconds")


def read_pilots(paths: list[Path]) -> pd.DataFrame:
    """Return a row per pilot: model, method, dataset and the columns of PILOT_COLUMNS.

    pilot_steps: as asked for; pilot_seconds: that they took.
    """
    files: list[PilotFile] = [read_json(path, PilotFile) for path in paths]
    rows = [
        (file["model"], file["method"], file["dataset"], file["accuracy"], file["steps_asked"],
         file["seconds"])
        for file in files
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["model", "method", "dataset", *PILOT_COLUMNS])
