"""The provenance of a report: the checkout's own commit, and packages that a job lacks."""

import importlib.metadata
import json
import subprocess

import pytest

from foretune.report import provenance


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.check_output(["git", *identity, *words], cwd=folder, text=True).strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Return somebody's repository with one commit, with a folder `copy` in it."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    git(tmp_path, "init", "-q")
    for folder in (tmp_path, tmp_path / "copy"):
        file = folder / provenance.THIS_FILE
        file.parent.mkdir(parents=True)
        file.write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "x")
    return tmp_path


def test_get_git_commit_is_that_of_the_checkout(repository, monkeypatch):
    monkeypatch.setattr(provenance, "CHECKOUT", repository)
    commit = git(repository, "rev-parse", "--short=12", "HEAD")
    assert provenance.get_git_commit() == commit
    (repository / provenance.THIS_FILE).write_text("2")
    assert provenance.get_git_commit() == f"{commit}+"
    git(repository, "rm", "-q", "--cached", provenance.THIS_FILE)  # then it is only a copy here
    assert provenance.get_git_commit() == "unknown"


def test_get_git_commit_of_a_copy_is_not_that_of_the_repository_around_it(repository, monkeypatch):
    monkeypatch.setattr(provenance, "CHECKOUT", repository / "copy")
    assert provenance.get_git_commit() == "unknown"
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    assert provenance.get_git_commit() == "unknown"


def test_write_provenance_does_without_snakemake_in_a_conda_environment(tmp_path, monkeypatch):
    version = importlib.metadata.version

    def find(name):
        if name == "snakemake":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", find)
    provenance.write_provenance({}, [], [], tmp_path / "provenance.json")
    versions = json.loads((tmp_path / "provenance.json").read_text())["versions"]
    assert versions["snakemake"] == "not installed" and versions["numpy"] == version("numpy")
