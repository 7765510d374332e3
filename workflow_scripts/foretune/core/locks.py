"""File locks: one run at a time per results folder, and one writer at a time per output folder.

Free of torch, because the Snakefile imports it.
"""

import errno
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor

from foretune.core.errors import ForetuneError
from foretune.core.files import explain_disk_error
from foretune.core.machine import get_user_name

RESULTS_LOCK = Path("results/.lock")
SNAKEMAKE_LOCKS = Path(".snakemake/locks")
LOCK_HOLDER_VARIABLE = "FORETUNE_LOCK_HELD_BY"  # a process id, which exec keeps
# The file system has no locks. ENOTSUP and EOPNOTSUPP differ on macOS.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
OUTPUT_FOLDERS = (Path("results"), Path("logs"), Path(".snakemake"))


def acquire_lock(path: Path | str, wait: bool = False) -> int | None:
    """Lock a file, which is created if needed, and return its open descriptor.

    The kernel releases the lock when the last copy of the descriptor is closed, that is at the
    latest when the process ends, even by SIGKILL. The file stays: if it were removed, two
    processes could hold locks on two files of the same name.

    We use filelock's `lock_descriptor` and not its class FileLock. FileLock hides its descriptor,
    which `lock_results` has to keep open through exec; and on a file system without locks it may
    fall back to a marker file, which a killed process leaves behind.

    Args:
        wait: whether to wait while another process holds the lock.

    Returns:
        The descriptor, or None if another process holds the lock and `wait` is false.

    Raises:
        ForetuneError: the file system has no locks.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    locked = False
    try:
        locked = lock_descriptor(descriptor, blocking=wait, poll_interval=0.25)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise ForetuneError(
            f"{path}: this file system has no file locks ({error.strerror}), and without them two "
            "jobs could write the same files; use another disk, or mount this one with locks"
        ) from None
    finally:
        if not locked:
            os.close(descriptor)
    return descriptor if locked else None


@contextmanager
def exclusive_lock(folder: Path | str, name: str = "") -> Iterator[None]:
    """Hold the lock of an output folder, or of one name in it; wait if another process holds it.

    A killed Snakemake leaves its jobs running, and its next run starts them again. The second job
    then waits here, and finds the work of the first one.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{name}.lock" if name else folder / ".lock"
    lock = acquire_lock(path)
    if lock is None:
        waited_for = folder / name
        print(f"{waited_for}: waiting for another process that writes to it", flush=True)
        lock = acquire_lock(path, wait=True)
    assert lock is not None  # because we waited for it
    try:
        yield
    finally:
        os.close(lock)


def lock_results() -> None:
    """Lock this folder's results until this process ends; exec keeps the lock.

    Raises:
        ForetuneError: another run holds the lock, and the message names its user, machine and
            process; or results/ is no folder that this user may write to.
    """
    if os.environ.get(LOCK_HOLDER_VARIABLE) == str(os.getpid()):
        return  # locked before exec
    for folder in OUTPUT_FOLDERS:
        check_writable(folder)
    lock = acquire_lock(RESULTS_LOCK)
    if lock is None:
        holder = RESULTS_LOCK.read_text(errors="replace").strip() or "unknown"
        raise ForetuneError(
            f"another run is at work on this folder's results/ ({holder}); wait until it ends"
        )
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{get_user_name()}, {platform.node()}, process {os.getpid()}\n".encode(), 0)
    # exec passes the descriptor on, and with it the lock. Jobs that Snakemake starts do not get it:
    # subprocess closes all descriptors but the standard ones.
    os.set_inheritable(lock, True)
    os.environ[LOCK_HOLDER_VARIABLE] = str(os.getpid())


def check_writable(folder: Path) -> None:
    """Create a folder for outputs, unless it exists. Raises ForetuneError if nobody can use it."""
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 16))  # a full disk still has room for empty files
    except FileExistsError:
        what = "is a link that leads nowhere" if folder.is_symlink() else "is no folder"
        raise ForetuneError(f"{folder} {what}; remove or rename it") from None
    except OSError as error:
        reason = explain_disk_error(error) or error.strerror
        raise ForetuneError(f"{folder.absolute()}: {reason}") from None


def remove_stale_locks() -> None:
    """Remove the locks of a killed Snakemake. Call it while holding the lock of `lock_results`."""
    shutil.rmtree(SNAKEMAKE_LOCKS, ignore_errors=True)
