"""Atomic writes and digests of files."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it becomes `path` only when all went well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(beside, 0o666 & ~umask)  # safetensors makes files that only their owner can read
        with open(beside, "rb") as file:
            os.fsync(file.fileno())  # or a power cut could leave the name without the content
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """A second name of the same file, which takes no room; a copy where that cannot be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_json(content, path: Path | str) -> None:
    with atomic_write(path) as beside:
        beside.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def digest_file(path: Path | str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(content) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
