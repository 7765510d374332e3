"""The names of the analysis tables."""

import subprocess
import sys

from checkout import ROOT
from foretune.analysis.tables import REPORT_TABLE_NAMES, TABLE_NAMES, TABLES_OUTSIDE_REPORT


def test_table_names_are_unique_and_those_of_the_report_are_among_them():
    assert len(set(TABLE_NAMES)) == len(TABLE_NAMES)
    assert {*REPORT_TABLE_NAMES, *TABLES_OUTSIDE_REPORT} == set(TABLE_NAMES)


def test_table_names_are_importable_without_pandas_and_torch():
    """The rules import them, and a dry run must stay fast."""
    code = (
        "import sys, foretune.analysis.tables; sys.exit(bool({'pandas', 'torch'} & {*sys.modules}))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "workflow_scripts", check=True)
