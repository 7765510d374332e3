"""Tables of many evaluations that are written one after the other."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from foretune.analysis.study_tables import EVALUATION_KEY
from foretune.analysis.table_files import read_tables, sort_by_run, stream_tables
from foretune.core.parquet import read_metadata
from foretune.evaluation.scores import CLASS_SCHEMA, OUTCOME_SCHEMA


def write_classes(path, model, method, trained_on):
    """Write class accuracies of one model and method, the datasets in reverse order."""
    rows = [
        {"model": model, "method": method, "wise_ft": None if name is None else 1.0,
         "trained_on": name, "evaluated_on": test, "split": "test", "class": label, "n": 10,
         "accuracy": 0.1 * number}
        for name in trained_on for test in ("y", 'x, "x"')
        for number, label in enumerate(["zebra", "ant"])
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, CLASS_SCHEMA), path)
    return path


def test_class_accuracies_are_sorted_over_all_files(tmp_path):
    paths = [
        write_classes(tmp_path / "1", "b", "zero_shot", [None]),
        write_classes(tmp_path / "2", "b", "full", ["y", "x"]),
        write_classes(tmp_path / "3", "a", "full", ["y", "x"]),
    ]
    output = tmp_path / "classes.parquet"
    stream_tables(sort_by_run(paths, EVALUATION_KEY), CLASS_SCHEMA, output, {"kind": "classes"})
    unsorted = pd.concat(map(pd.read_parquet, paths))
    expected = unsorted.sort_values(EVALUATION_KEY, kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(pd.read_parquet(output), expected)
    pd.testing.assert_frame_equal(pd.read_csv(output.with_suffix(".csv")), expected)
    assert read_metadata(output) == {"kind": "classes"}


def test_a_table_without_files_has_its_columns(tmp_path):
    stream_tables(sort_by_run([], EVALUATION_KEY), CLASS_SCHEMA, tmp_path / "classes.parquet", {})
    assert list(pd.read_parquet(tmp_path / "classes.parquet")) == CLASS_SCHEMA.names
    assert pd.read_csv(tmp_path / "classes.csv").empty


def test_read_tables_knows_files_of_older_versions(tmp_path):
    """They lack columns that were added since; `make report` may find some in results/."""
    row = {"model": "a", "method": "full", "wise_ft": 1.0, "accuracy": 0.5, "n": 3}
    old = pa.Table.from_pylist([row], OUTCOME_SCHEMA).drop_columns(["ece", "nll"])
    pq.write_table(old, tmp_path / "old.parquet")
    new = pa.Table.from_pylist([row | {"ece": 0.1, "nll": 2.0}], OUTCOME_SCHEMA)
    pq.write_table(new, tmp_path / "new.parquet")
    read = read_tables([tmp_path / "old.parquet", tmp_path / "new.parquet"], OUTCOME_SCHEMA)
    assert list(read) == OUTCOME_SCHEMA.names and read.ece.isna().tolist() == [True, False]
    assert read_tables([], OUTCOME_SCHEMA).empty
