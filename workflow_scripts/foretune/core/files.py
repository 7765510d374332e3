"""Atomic writes, links and digests of files."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` if the block succeeds.

    `path` is thus either complete or absent. If the block fails, the temporary file is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # safetensors lets only the owner read its files
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # otherwise a power cut could leave the name without content
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link `target` to `source`, which takes no space; copy it if that is impossible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_json(content: Any, path: Path | str) -> None:
    """Write a JSON file atomically, with sorted keys, so that equal content gives equal bytes."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def digest_file(path: Path | str) -> str:
    """Return the SHA-256 digest of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(content: Any) -> str:
    """Return the SHA-256 digest of a JSON value in hexadecimal; the order of keys is ignored."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
