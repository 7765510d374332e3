"""Which commits of a repository of the hub the files of a folder come from."""

from pathlib import Path

# Where huggingface_hub notes, per file that it fetched, the commit in the first line.
NOTES = ".cache/huggingface/download"


def list_fetched_revisions(root: Path) -> list[str]:
    """Return the commits of the files that huggingface_hub fetched to a folder, sorted.

    There is one, unless a later fetch replaced only the files that had changed.
    """
    commits = set()
    for note in (root / NOTES).rglob("*.metadata"):
        commits |= set(note.read_text().split()[:1])
    return sorted(commits)
