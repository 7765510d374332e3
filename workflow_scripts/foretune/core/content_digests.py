"""Digests of the contents of a user's files, so that a study notices every change of them.

Snakemake compares the times of files above 1 MB, and so misses weights that were replaced by others
with an older time, as `cp -p`, `rsync` and `mv` do. A digest in a rule's params notices them, and
does not rerun the rule for a file that was merely touched.
"""

import contextlib
from pathlib import Path

from foretune.core.errors import ForetuneError
from foretune.core.files import digest_file, read_json, write_json


class ContentDigests:
    """SHA-256 digests of files, kept in a JSON file.

    A file is read again if its size, inode, or time of modification or change differs. The last
    of these cannot be set to a value of one's choice.
    """

    def __init__(self, store: Path):
        self.store = store
        self.known: dict[str, list] = self._read()

    def _read(self) -> dict[str, list]:
        try:
            return read_json(self.store, dict[str, list])
        except ForetuneError:  # a missing or damaged file costs only that all are read again
            return {}

    def digest(self, path: Path | str) -> str:
        """Return a file's digest, or "" if there is no such file, which Snakemake will report."""
        key = str(Path(path).absolute())
        try:
            stat = Path(path).stat()
            facts = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
            if key not in self.known or self.known[key][:-1] != facts:
                self.known[key] = [*facts, digest_file(path)]
                self._write(key)
        except OSError:
            return ""
        return self.known[key][-1]

    def _write(self, key: str) -> None:
        # In a folder that cannot be written to, the next run reads the file again.
        with contextlib.suppress(OSError):
            write_json(self._read() | {key: self.known[key]}, self.store)
