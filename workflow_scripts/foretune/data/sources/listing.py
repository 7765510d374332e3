"""List the image files below a folder, and what is left out and why.

Readers of folders use it, and the rules, which compare listings to notice changed files.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from foretune.core.errors import ForetuneError
from foretune.core.files import digest_json
from foretune.data.sources.base import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES, join_names

# Folders that systems and tools make beside a user's. Names that begin with a dot need no entry.
SYSTEM_FOLDERS = {
    "__macosx", "@eadir", "@tmp", "@recycle", "#recycle", "#snapshot", "lost+found",
    "$recycle.bin", "recycler", "system volume information", "__pycache__", "network trash folder",
}  # fmt: skip


@dataclass
class Listing:
    """The contents of a folder, at any depth.

    Attributes:
        folders: paths of the folders, relative to it and with slashes.
        files: path of each file that is not hidden -> its size in bytes and time of change in ns.
        images: paths of the image files.
        others: paths of images of formats that cannot be read.
        left_out: the number of files, folders and links that are no images, by reason.
    """

    folders: list[str] = field(default_factory=list)
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def digest_folder(top: Path | str) -> str:
    """Return a digest of the paths, sizes and times of a folder's files, to notice changes.

    Of a folder that cannot be read, it is that of the error, which the job that reads it will meet.
    """
    try:
        listing = list_folder(top)
    except ForetuneError as error:
        return digest_json(str(error))
    return digest_json([sorted(listing.files.items()), listing.folders, listing.left_out])


def list_folder(top: Path | str) -> Listing:
    """List the folder `top` at every depth, hidden and system folders left out.

    Links are followed, except for those that lead to a folder that contains them.

    Raises:
        ForetuneError: a folder cannot be read.
    """
    listing = Listing()
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while pending:
        prefix, above = pending.pop()
        path = os.path.join(top, prefix)
        try:
            here = os.stat(path)
            entries = list(os.scandir(path))
        except OSError as error:
            raise ForetuneError(f"{path}: cannot be read ({error.strerror})") from None
        ancestors = above | {(here.st_dev, here.st_ino)}
        for entry in entries:
            name = prefix + entry.name
            try:
                facts = entry.stat()
            except OSError:
                listing.left_out["dangling links"] += 1
                continue
            if stat.S_ISDIR(facts.st_mode):
                if is_hidden_folder(entry.name):
                    listing.left_out[f"folders {show_name(entry.name)}"] += 1
                elif (facts.st_dev, facts.st_ino) in ancestors:
                    listing.left_out["looping links"] += 1
                else:
                    listing.folders.append(name)
                    pending.append((f"{name}/", ancestors))
                continue
            reason = get_reason_to_skip(entry.name, facts.st_mode)
            if stat.S_ISREG(facts.st_mode) and not entry.name.startswith("."):
                listing.files[name] = (facts.st_size, facts.st_mtime_ns)
            if reason is None:
                listing.images.append(name)
                continue
            listing.left_out[reason] += 1
            if reason in OTHER_IMAGE_SUFFIXES:
                listing.others.append(name)
    listing.folders.sort(key=split_path)
    listing.images.sort(key=split_path)
    return listing


def split_path(name: str) -> list[str]:
    """Return the parts of a path, by which paths are sorted."""
    return name.split("/")


def is_hidden_folder(name: str) -> bool:
    """Return whether a folder is hidden, or a system's and not a user's."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def get_reason_to_skip(name: str, mode: int) -> str | None:
    """Return why a file is left out, or None if it is an image by its name.

    mode: its `st_mode`.
    """
    if name.startswith("."):
        return "hidden files"
    if not stat.S_ISREG(mode):
        return "pipes and devices"
    suffix = os.path.splitext(name)[1].strip().lower()
    if suffix in IMAGE_SUFFIXES:
        return None
    return show_name(suffix) if len(suffix) > 1 else "no suffix"


def check_names(names: Iterable[str]) -> None:
    """Refuse the names of images and classes that no table can keep; the message has them all.

    Raises:
        ForetuneError: a name is not UTF-8, or has a line break.
    """
    bad = [name for name in names if not can_be_kept(name)]
    if bad:
        raise ForetuneError(
            f"rename {join_names(map(repr, bad))}: a name must be UTF-8, without line breaks"
        )


def can_be_kept(name: str) -> bool:
    """Return whether a name is UTF-8 and has no line break."""
    try:
        name.encode()
    except UnicodeEncodeError:  # Python keeps other bytes as surrogates
        return False
    return "".join(name.splitlines()) == name


def show_name(name: str) -> str:
    """Return a name for a message: as it is, or quoted if a terminal would not show it."""
    return name if name.isprintable() else repr(name)


def format_left_out(left_out: Counter[str]) -> str:
    """Return what was left out as a text, the most frequent reason first."""
    return "left out: " + ", ".join(f"{reason} {count}" for reason, count in left_out.most_common())
