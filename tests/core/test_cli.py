"""Options that all scripts share."""

import argparse
import json
import subprocess
import sys

import pytest

from checkout import ROOT
from foretune.core.cli import parse_json


def test_parse_json_reads_texts():
    assert parse_json('{"a": "ä"}') == {"a": "ä"} and parse_json("null") is None
    for text in ("{", "", "--"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no JSON"):
            parse_json(text)


def test_settings_may_be_longer_than_an_argument(tmp_path):
    """Rules write them as here. Snakemake gives bash a long command as a file."""
    value = json.dumps({f"{i:05}": "x" * 50 for i in range(4000)})
    code = 'import sys; from foretune.core.cli import parse_json; print(len(parse_json("-")))'
    script = tmp_path / "job.sh"
    script.write_text(f"printf %s '{value}' | {sys.executable} -c '{code}' 2>&1 | tee log")
    printed = subprocess.check_output(
        ["bash", script], cwd=tmp_path, text=True,
        env={"PYTHONPATH": str(ROOT / "workflow_scripts"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert printed == "4000\n"
