"""Atomic writes, links and digests of files."""

import errno
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

from foretune.core.errors import ForetuneError
from foretune.core.machine import get_process_space, is_running

TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.part")
DAY = 24 * 60 * 60
DISK_ERRORS = {  # what the user can change, and how
    errno.ENOSPC: "the disk is full; free some space and run it again",
    errno.EDQUOT: "your disk quota is used up; free some space and run it again",
    errno.EROFS: "the file system is read-only; work in a folder that you may write to",
    errno.EACCES: "it may not be read or written; change its permissions or its owner",
    errno.EPERM: "it may not be read or written; change its permissions or its owner",
    errno.EFBIG: "the file is larger than the file system or `ulimit -f` allows",
    errno.EIO: "the disk or the network drive fails; look at the system's log",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
    errno.EMFILE: "too many files are open; raise the limit of `ulimit -n`",
}


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` if the block succeeds.

    `path` is thus either complete or absent. If the block fails, the temporary file is removed; if
    the process is killed, the next process that writes into this folder removes it.

    Raises:
        ForetuneError: the disk is full or must not be written to; the message names `path`.
    """
    path = Path(path)
    unique = f"{get_process_space()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name}.{unique}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned_files(path.parent.absolute())
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # safetensors lets only the owner read its files
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # otherwise a power cut could leave the name without content
        os.replace(temporary, path)
    except ForetuneError:
        raise
    except Exception as error:
        reason = explain_disk_error(error)
        if reason is None:
            raise
        name = getattr(error, "filename", None) or temporary
        shown = path if Path(os.fsdecode(name)) == temporary else name
        raise ForetuneError(f"{shown}: {reason}") from None
    finally:
        with suppress(OSError):  # of a folder that cannot be written to
            temporary.unlink()


def explain_disk_error(error: Exception) -> str | None:
    """Return what is wrong with the disk, and what to do, or None if it is something else.

    safetensors and PyArrow raise errors of their own, with the system's message in their text, and
    NumPy and PyTorch say only that not everything was written.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return DISK_ERRORS.get(error.errno)
    text = str(error)
    for number, reason in DISK_ERRORS.items():
        if os.strerror(number) in text:
            return reason
    if re.search(r"requested and \d+ written|file write failed|unexpected pos \d+ vs", text):
        return DISK_ERRORS[errno.ENOSPC]
    return None


@functools.cache  # once per process: a folder of predictions can have 100,000 files
def remove_abandoned_files(folder: Path) -> None:
    """Remove the temporary files of killed processes from a folder.

    A file of another machine, whose processes are unknown here, is removed if nothing was written
    to it for a day.
    """
    with os.scandir(folder) as entries:
        abandoned = [entry for entry in entries if is_abandoned(entry)]
    for entry in abandoned:
        with suppress(OSError):  # another process was faster, or the file is another user's
            os.unlink(entry.path)


def is_abandoned(entry: os.DirEntry) -> bool:
    """Return whether a file is one of `atomic_write` whose process has ended."""
    match = TEMPORARY.fullmatch(entry.name)
    if not match:
        return False
    space, process = match.groups()
    if space == get_process_space() and not is_running(int(process)):
        return True
    try:
        return entry.stat().st_mtime < time.time() - DAY
    except OSError:  # renamed in the meantime
        return False


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link `target` to `source`, which takes no space; copy it if that is impossible.

    An older `target` is replaced.
    """
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without links, or another one
        shutil.copyfile(source, target)


def write_json(content: Any, path: Path | str) -> None:
    """Write a JSON file atomically, with sorted keys, so that equal content gives equal bytes."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


class MissingKeyError(ForetuneError, KeyError):
    """A key that a file lacks. Templates and `except KeyError` take it for what it is."""


def read_json(path: Path | str, kind: Any = dict) -> Any:
    """Return the content of a JSON file that foretune wrote.

    Args:
        kind: what the file holds, a type such as a TypedDict; all parts that are there are checked.

    Raises:
        ForetuneError: the file is missing or damaged; or, when it is looked up, a key is missing.
    """
    remedy = "is damaged, or comes from another version; delete it and run again"

    class Facts(dict):
        def __missing__(self, key: str):
            raise MissingKeyError(f"{path}: has no {key}, so it {remedy}")

    try:
        content = json.loads(Path(path).read_text(), object_hook=Facts)
    except FileNotFoundError:
        raise ForetuneError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ForetuneError(f"{path}: cannot be read ({error}); delete it and run again") from None
    if not fits(content, kind):
        raise ForetuneError(f"{path}: {remedy}")
    return content


def fits(value: Any, kind: Any) -> bool:
    """Return whether a value read from JSON is of a type, at every depth."""
    if kind is Any:
        return True
    if is_typeddict(kind):
        parts = get_fields(kind)
        known = parts.keys() & value.keys() if isinstance(value, dict) else ()
        return isinstance(value, dict) and all(fits(value[name], parts[name]) for name in known)
    arguments = get_args(kind)
    if get_origin(kind) is UnionType:
        return any(fits(value, one) for one in arguments)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(fits(item, arguments[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(fits(v, arguments[1]) for v in value.values())
    return isinstance(value, int | float if kind is float else kind)


# Looked up once: an analysis reads tens of thousands of files, and evaluates names of types.
get_fields = functools.cache(get_type_hints)


def digest_file(path: Path | str) -> str:
    """Return the SHA-256 digest of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(content: Any) -> str:
    """Return the SHA-256 digest of a JSON value in hexadecimal; the order of keys is ignored."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
