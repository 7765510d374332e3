"""Read `notes.json`, which lists the files left out of a dataset and other findings."""

from collections import Counter
from pathlib import Path
from typing import TypedDict

from foretune.core.files import read_json
from foretune.data.sources.listing import format_left_out

NOTES_FILE = "notes.json"


class PreparationNotes(TypedDict):
    """The content of `notes.json`: what was left out, by reason, and notes in words."""

    left_out: dict[str, int]
    notes: list[str]


def read_notes(folder: Path | str) -> list[str]:
    """Return what the preparation of a dataset left out and noticed, one text each.

    There are none for a folder that an older version prepared.
    """
    path = Path(folder) / NOTES_FILE
    if not path.is_file():
        return []
    return format_notes(read_json(path, PreparationNotes))


def format_notes(notes: PreparationNotes) -> list[str]:
    """Return what was left out and noticed, one text each."""
    left_out = Counter(notes["left_out"])
    return [*([format_left_out(left_out)] if left_out else []), *notes["notes"]]
