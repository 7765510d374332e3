"""The Makefile: odd paths reach the scripts whole, and only a supported Python makes a .venv."""

import os
import shutil
import subprocess

import pytest

from checkout import ROOT

# It stands for a Python of any version: `-c` reports whether it is supported, `-m venv` makes a
# .venv of it, and a script prints its arguments.
PYTHON = """#!/bin/sh
case "$1 $2" in
    "-c "*) exit {unsupported} ;;
    "--version "*) echo "Python 3.{minor}.1" ;;
    "-m venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python; printf "#!/bin/sh\\n" > .venv/bin/pip
        chmod +x .venv/bin/pip ;;
    *) printf "[%s]" "$@"; echo "PYTHONPATH=$PYTHONPATH" ;;
esac
"""


@pytest.fixture
def folder(tmp_path):
    """Return a folder with the Makefile, whose name has every odd character but make's own `:#`."""
    folder = tmp_path / "my $checkout; & 'it' (1)"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (tmp_path / "bin").mkdir()
    for minor in (10, 12):
        path = tmp_path / f"bin/python3.{minor}"
        path.write_text(PYTHON.format(minor=minor, unsupported=int(minor < 11)))
        path.chmod(0o755)
    return folder


def make(folder, *words, **environment):
    env = {
        **os.environ,
        "PATH": f"{folder.parent / 'bin'}:{os.environ['PATH']}",
        **environment,
    }
    env.pop("MAKEFLAGS", None)
    return subprocess.run(["make", *words], cwd=folder, env=env, text=True, capture_output=True)


@pytest.mark.parametrize("target", ["demo", "report", "export", "plan", "fetch", "forecast"])
def test_make_takes_a_study_by_any_name_and_runs_none_of_it(target, folder):
    study = '/tmp/my data/a;touch here&b\'s "study".yaml'
    done = make(
        folder, target, "PYTHON=python3.12", f"STUDY={study}", "DATA=my images",
        "MODEL=a", "METHOD=b", "DATASET=c d", "OUT=e",
        PYTHONPATH="/opt/module/numpy",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"[--study][{study}]" in done.stdout and "PYTHONPATH=\n" in done.stdout
    assert not (folder / "here").exists()


def test_make_says_which_python_it_needs_and_leaves_no_venv_behind(folder):
    refused = make(folder, "demo", "PYTHON=python3.10")
    assert refused.returncode == 2 and not (folder / ".venv").exists()
    assert "foretune needs Python 3.11 or later, and python3.10 is Python 3.10.1" in refused.stdout
    missing = make(folder, "demo", "PYTHON=/nowhere/python3")
    assert missing.returncode == 2 and not (folder / ".venv").exists()
    assert make(folder, "demo", "PYTHON=python3.12").returncode == 0
    # A .venv that works is kept, whatever PYTHON is now.
    (folder / ".venv/bin/.run").unlink()
    assert make(folder, "demo", "PYTHON=python3.10").returncode == 0


def test_make_replaces_a_venv_of_an_older_python(folder):
    (folder / ".venv/bin").mkdir(parents=True)
    shutil.copy(folder.parent / "bin/python3.10", folder / ".venv/bin/python")
    assert make(folder, "demo", "PYTHON=python3.12").returncode == 0
    assert "Python 3.12" in (folder / ".venv/bin/python").read_text()
