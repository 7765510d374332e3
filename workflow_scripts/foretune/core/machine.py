"""Facts about this machine and user that some systems do not tell."""

import functools
import getpass
import hashlib
import os
import platform


def count_cores() -> int:
    """Return the number of cores that this process may use; macOS only tells those there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def get_user_name() -> str:
    """Return the user's name, or the number of a user without a name, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # KeyError before Python 3.13
        return f"user {os.getuid()}"


@functools.cache
def get_process_space() -> str:
    """Return a name for where process ids are unique: this machine, or this container on it.

    Two containers may have the machine's name and equal process ids. Linux tells them apart by
    their process namespaces.

    Returns:
        8 hexadecimal digits.
    """
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        namespace = ""
    return hashlib.sha256(f"{platform.node()} {namespace}".encode()).hexdigest()[:8]


def is_running(process: int) -> bool:
    """Return whether this machine, or this container, has a process of this id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
