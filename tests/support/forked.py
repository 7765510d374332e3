"""Run scripts in children of this process, which need not import torch or Snakemake again."""

import os
import runpy
import subprocess
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path

from checkout import ROOT

Process = get_context("fork").Process
LIBRARY = ROOT / "workflow_scripts"


def run(*words, cwd=ROOT, env=None, forget=(), merged=False) -> subprocess.CompletedProcess:
    """Run Python's command line `words`, a script or `-m module`, and return what it printed.

    The child reads foretune's modules from the folder of the script, as a new Python would.
    forget: further packages that it imports again, because they read `env` when imported;
    merged: whether errors are printed among the rest.
    """
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        streams = [file.fileno() for file in (stdout, stdout if merged else stderr)]
        arguments = (list(map(str, words)), cwd, env, {"foretune", *forget}, streams)
        process = Process(target=_work, args=arguments)
        process.start()
        process.join()
        printed = []
        for file in (stdout, stderr):
            file.seek(0)
            printed.append(file.read())
    return subprocess.CompletedProcess(words, process.exitcode, *printed)


def _work(words: list[str], cwd, env, forget: set[str], streams: list[int]) -> None:
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    os.chdir(cwd)
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name.split(".")[0] in forget or Path(file).is_relative_to(LIBRARY):
            del sys.modules[name]
    sys.path[:] = [path for path in sys.path if not Path(path).is_relative_to(LIBRARY)]
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # a child of fork can have no other threads
    if "snakemake.shell" in sys.modules:
        sys.modules["snakemake.shell"].STDOUT = sys.stdout  # where jobs print
    os.execv = _become
    _start(words)


def _start(words: list[str]) -> None:
    if words[0] == "-m":
        sys.argv[:] = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv[:] = ["-c", *words[2:]]
        sys.path.insert(0, "")
        exec(words[1], {"__name__": "__main__"})
    else:
        sys.argv[:] = words
        sys.path.insert(0, str(Path(words[0]).absolute().parent))
        runpy.run_path(words[0], run_name="__main__")


def _become(program: str, words: list[str]) -> None:
    """Stand for an `os.execv` of Python, by which run_study.py turns into Snakemake."""
    assert program == sys.executable
    _start(words[1:])
    sys.exit()
