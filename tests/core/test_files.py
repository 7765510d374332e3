"""Atomic writes: what is left behind, what a full disk says, and links where there are none."""

import errno
import os
import subprocess
import sys
import time

import pytest

import forked
from checkout import ROOT
from foretune.core import files, machine
from foretune.core.files import atomic_write, explain_disk_error, link_or_copy

WRITE_AND_DIE = """
import os, sys
from foretune.core.files import atomic_write
with atomic_write(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print(temporary.name, flush=True)
    os.kill(os.getpid(), 9)
"""


def abandon(path):
    """Write a file in a process that is killed, and return the name of its temporary file."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "workflow_scripts")}
    command = [sys.executable, "-c", WRITE_AND_DIE, str(path)]
    return subprocess.run(command, env=env, text=True, stdout=subprocess.PIPE).stdout.strip()


def test_atomic_write_removes_what_a_killed_process_left(tmp_path):
    left = abandon(tmp_path / "first.json")
    assert [path.name for path in tmp_path.iterdir()] == [left]
    with atomic_write(tmp_path / "second.json") as temporary:
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["second.json"]


def test_a_process_looks_for_abandoned_files_once_per_folder(tmp_path, monkeypatch):
    listed = []
    monkeypatch.setattr(files, "is_abandoned", lambda entry: listed.append(entry.name))
    for name in ("a", "b", "c"):
        with atomic_write(tmp_path / name) as temporary:
            temporary.write_text(name)
    assert listed == []  # the folder was empty at the first write


def test_atomic_write_keeps_the_files_of_living_processes_and_of_other_machines(
    tmp_path, monkeypatch
):
    left = abandon(tmp_path / "first.json")
    monkeypatch.setattr(files, "get_process_space", lambda: "0" * 8)  # we are on another machine
    own = tmp_path / ".part"  # a user's own file, by whatever name
    own.write_text("kept")
    with atomic_write(tmp_path / "a") as first, atomic_write(tmp_path / "a") as second:
        assert first != second  # equal names on two machines would be worse
        first.write_text("1")
        second.write_text("2")
        assert (tmp_path / left).exists()
        day_ago = time.time() - files.DAY - 1
        os.utime(tmp_path / left, (day_ago, day_ago))
        files.remove_abandoned_files.cache_clear()  # as in a new process
        with atomic_write(tmp_path / "b") as temporary:
            temporary.write_text("3")
        assert not (tmp_path / left).exists() and own.exists()
    assert (tmp_path / "a").read_text() == "1"


def test_process_spaces_of_two_containers_on_one_machine_differ(monkeypatch):
    spaces = set()
    for namespace in ("pid:[4026531836]", "pid:[4026532201]"):
        monkeypatch.setattr(os, "readlink", lambda path, namespace=namespace: namespace)
        machine.get_process_space.cache_clear()
        spaces.add(machine.get_process_space())
    machine.get_process_space.cache_clear()
    assert len(spaces) == 2


# A limit of the size of files stands for a full disk: the same calls fail.
LIMITED = """
import resource, signal, sys
import numpy as np, pyarrow as pa, torch
from pathlib import Path
from safetensors.torch import save_file
from foretune.core import cli
from foretune.core.files import atomic_write, write_json
from foretune.core.parquet import write_parquet
from foretune.encoders.image_cache import write_array
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
noise = np.random.default_rng(0).normal(size=100_000)
def write_torch(path):
    with atomic_write(path) as temporary: torch.save(torch.tensor(noise), temporary)
def write_safetensors(path):
    with atomic_write(path) as temporary: save_file({"x": torch.tensor(noise)}, temporary)
def write_numpy(path):
    with atomic_write(path) as temporary, open(temporary, "wb") as file: np.save(file, noise)
def write_images(path):
    with atomic_write(path) as temporary: write_array(temporary, noise.astype("u1")[:, None], 9)
for number, write in enumerate([
    write_torch, write_safetensors, write_numpy, write_images,
    lambda path: write_json(noise.tolist(), path),
    lambda path: write_parquet(pa.table({"x": noise}), path, {}),
]):
    path = Path(sys.argv[1], f"{number}.out")
    try:
        cli.main(lambda: write(path))
    except SystemExit as exit:
        print(exit.code)
"""


def test_atomic_write_says_in_one_line_which_file_has_no_space(tmp_path):
    done = forked.run("-c", LIMITED, str(tmp_path), cwd=ROOT / "workflow_scripts")
    lines = done.stdout.splitlines()
    assert len(lines) == 6, done.stderr
    for number, line in enumerate(lines):
        assert line.startswith(f"error: {tmp_path}/{number}.out: "), line
        assert "`ulimit -f`" in line or "the disk is full" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError("1000 requested and 300 written"),
        RuntimeError("[enforce fail at inline_container.cc:664] . file write failed"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 768 vs 662"),
    ],
)
def test_explain_disk_error_knows_the_words_of_each_library(error):
    assert "the disk is full" in explain_disk_error(error)
    assert explain_disk_error(ValueError("shapes differ")) is None
    assert explain_disk_error(FileNotFoundError(errno.ENOENT, "x")) is None


def test_link_or_copy_copies_on_a_file_system_without_links(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "source").write_text("1")
    for _ in range(2):  # it replaces an older target
        link_or_copy(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "1"
