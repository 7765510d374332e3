"""The real programs that some tests need: Chromium and Slurm."""

import os

import pytest


def refuse_missing(message: str | None) -> None:
    """Skip the test if something is missing, which the message names; in CI, fail it instead."""
    if message and os.environ.get("CI") == "true":
        pytest.fail(message)
    if message:
        pytest.skip(message)
