"""Accuracies from elsewhere as the table of outcomes that a study's own evaluations would give."""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from foretune.core.outcomes_file import read_outcomes
from foretune.data.prepared import read_manifest
from foretune.evaluation.scores import OUTCOME_SCHEMA


def tabulate_outcomes(path: Path, manifests: list[Path]) -> pd.DataFrame:
    """Return the rows of a file of outcomes in the form of OUTCOME_SCHEMA.

    manifests: of the prepared tests, from which the chance level and the digest of a test come.
    Without a manifest, the chance level is NaN, and the test counts as different from all others.

    Raises:
        ForetuneError: the file is not a file of outcomes (see `read_outcomes`).
    """
    read = [read_manifest(Path(manifest).parent) for manifest in manifests]
    tests = {(manifest["name"], manifest["split"]): manifest for manifest in read}
    rows = []
    for row in read_outcomes(path):
        manifest = tests.get(row.test)
        rows.append({
            "model": row.model, "method": row.method, "trained_on": row.trained_on,
            "wise_ft": None if row.trained_on is None else 1.0,
            "evaluated_on": row.evaluated_on, "split": row.split, "accuracy": row.accuracy,
            "n": row.n, "chance": 1 / len(manifest["classes"]) if manifest else None,
            "test_digest": manifest["test_digest"] if manifest else "/".join(row.test),
        })  # fmt: skip
    frame = pd.DataFrame(rows, columns=OUTCOME_SCHEMA.names)
    numbers = {field.name: float for field in OUTCOME_SCHEMA if field.type == pa.float64()}
    return frame.astype(numbers | {"n": "Int64"})
