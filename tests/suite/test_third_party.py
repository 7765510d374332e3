"""THIRD_PARTY.md lists every bundled file, with the licence and source that the file states."""

import re

import pytest

from checkout import ROOT
from foretune.core.parquet import read_metadata

BUNDLED = sorted((ROOT / "resources/mini").rglob("*.parquet"))
# Other files that may hold the work of others, or are built from it.
OTHERS = [
    path
    for folder, suffixes in (
        ("resources", (".gz", ".safetensors")),
        ("docs", (".png", ".jpg", ".jpeg", ".webp", ".gif", ".svg", ".woff", ".woff2", ".ttf")),
        ("workflow_scripts", (".png", ".svg", ".woff", ".woff2", ".ttf", ".otf")),
    )
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in suffixes
]


def read_table() -> dict[str, tuple[str, str]]:
    """Return licence and source by file, from all tables with the columns file, licence, source."""
    text = (ROOT / "THIRD_PARTY.md").read_text()
    rows = re.findall(r"^\| `([^`|]+)` \| ([^|]+) \| ([^|]+) \|$", text, re.M)
    return {file: (licence, source) for file, licence, source in rows}


def test_third_party_table_has_the_licence_and_source_of_every_parquet_file():
    table = read_table()
    assert len(BUNDLED) > 10
    for path in BUNDLED:
        file, metadata = str(path.relative_to(ROOT)), read_metadata(path)
        assert file in table, f"{file} is missing in THIRD_PARTY.md"
        if "licence" in metadata:
            stated = metadata["licence"], metadata["source"]
            assert table[file] == stated, (
                f"{file} states {stated}, but THIRD_PARTY.md {table[file]}"
            )
        else:
            assert table[file][0] == "CC0 (foretune)"  # index and study, which are ours


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_third_party_table_has_every_other_bundled_file(path):
    assert str(path.relative_to(ROOT)) in read_table()


def test_third_party_table_names_no_dataset_that_is_gone():
    named = {file for file in read_table() if file.endswith(".parquet")}
    assert named == {str(path.relative_to(ROOT)) for path in BUNDLED}


def test_third_party_licence_texts_are_bundled():
    text = (ROOT / "THIRD_PARTY.md").read_text()
    linked = re.findall(r"LICENSES/[\w.-]+\.txt", text)
    assert len(set(linked)) == 2
    for file in linked:
        assert (ROOT / file).exists(), f"THIRD_PARTY.md links {file}, which is not there"
