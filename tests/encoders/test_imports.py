"""The short start of jobs: its version guard, its switch, and what it leaves out."""

import os
import subprocess
import sys
from importlib import metadata

import pytest

from checkout import ROOT
from foretune.encoders import imports

SHOW_COMPILER = """
import sys
from foretune.encoders.imports import open_clip, restore_compiler, restore_transformers
print("stub" if "__file__" not in vars(sys.modules["torch._dynamo"]) else "compiler")
restore_transformers()
print("stub" if "__file__" not in vars(sys.modules["torch._dynamo"]) else "compiler")
print(open_clip.hf_model.transformers is not None)
"""


@pytest.fixture
def tried(monkeypatch):
    """Installs versions that were tried, as far as the guard can see."""
    monkeypatch.delenv("FORETUNE_FULL_IMPORTS", raising=False)
    versions = {"torch": "2.15.0+cu130", "open_clip_torch": "3.3.0"}
    monkeypatch.setattr(metadata, "version", versions.__getitem__)
    return versions


def test_may_shorten_imports_of_tried_versions(tried):
    assert imports.may_shorten_imports()


@pytest.mark.parametrize(
    ("package", "version"),
    [("torch", "2.150.0"), ("torch", "3.0.0"), ("open_clip_torch", "4.0.0")],
)
def test_may_shorten_imports_refuses_untried_versions(tried, package, version):
    tried[package] = version
    assert not imports.may_shorten_imports()


def test_may_shorten_imports_is_switched_off_by_the_environment(tried, monkeypatch):
    monkeypatch.setenv("FORETUNE_FULL_IMPORTS", "1")
    assert not imports.may_shorten_imports()


def test_import_open_clip_is_plain_for_untried_versions(tried, monkeypatch):
    tried["torch"] = "9.9.0"
    monkeypatch.setattr(imports, "add_compiler_stub", lambda modules: pytest.fail("a stub"))
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    assert imports.import_open_clip() is imports.open_clip


# The other tests see that the switch leads to plain imports.
@pytest.mark.parametrize("switch", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_imports_leave_out_the_compiler_until_it_is_restored(switch):
    environment = os.environ | {
        "FORETUNE_FULL_IMPORTS": switch, "PYTHONPATH": str(ROOT / "workflow_scripts"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SHOW_COMPILER], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    at_start, restored, has_transformers = done.stdout.split()
    shortened = switch != "1" and imports.may_shorten_imports()
    assert at_start == ("stub" if shortened else "compiler")
    assert restored == "compiler" and has_transformers == "True"
