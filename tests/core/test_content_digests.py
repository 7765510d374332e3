"""Tests of the digests of a user's files: every change is noticed, and no file is read twice."""

import os

from foretune.core import content_digests
from foretune.core.content_digests import ContentDigests


def test_digest_notices_every_change_and_reads_a_file_once(tmp_path, monkeypatch):
    reads, digest_file = [], content_digests.digest_file
    monkeypatch.setattr(
        content_digests, "digest_file", lambda path: reads.append(path) or digest_file(path)
    )
    path, store = tmp_path / "weights.bin", tmp_path / "kept/digests.json"
    path.write_bytes(b"one")
    first = ContentDigests(store).digest(path)
    assert ContentDigests(store).digest(path) == first and len(reads) == 1
    stat = path.stat()
    for shift in (-10, 0, 10):  # the same size, and an older, equal and newer time
        path.write_bytes(b"two")
        os.utime(path, (stat.st_atime + shift, stat.st_mtime + shift))
        assert ContentDigests(store).digest(path) != first
        path.write_bytes(b"one")
        assert ContentDigests(store).digest(path) == first
    os.utime(path, (0, 0))
    assert ContentDigests(store).digest(path) == first


def test_digest_does_without_its_store_and_without_the_file(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "file").touch()
    assert ContentDigests(tmp_path / "file/store.json").digest(tmp_path / "a")
    (tmp_path / "store.json").write_text("not json")
    assert ContentDigests(tmp_path / "store.json").digest(tmp_path / "a")
    assert ContentDigests(tmp_path / "store.json").digest(tmp_path / "gone") == ""
