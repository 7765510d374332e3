"""The manual against the code: messages that it explains, files that it names, and its links."""

import re

import pytest

from checkout import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
# Messages of make, pip and jsonschema.
FOREIGN = (
    "No matching distribution found for snakemake",
    "make: python3: command not found",
    "… is greater than the maximum of …",
)


def test_troubleshooting_quotes_messages_of_the_code():
    page = (ROOT / "docs/troubleshooting.md").read_text()
    library = "".join(path.read_text() for path in (ROOT / "workflow_scripts").rglob("*.py"))
    # Messages are split over lines of strings in the code.
    library = re.sub(r"\"\s+f?\"", "", library)
    quoted = re.findall(r"^\*\*`(.+)`\*\*", page, flags=re.M)
    assert len(quoted) > 10
    for message in quoted:
        if message in FOREIGN:
            continue
        # An ellipsis stands for a name or number. The longest other part must be in the code.
        pieces = [piece.strip(" .,:;'") for piece in re.split(r"…|;", message)]
        longest = max(pieces, key=len)
        assert longest in library, f"{message}: no such message in the code"


@pytest.mark.parametrize("path", [*PAGES, *TEXTS], ids=lambda path: path.name)
def test_documentation_names_files_that_exist(path):
    text = path.read_text()
    named = re.findall(
        r"`((?:benchmarks|studies|tests|docs|profiles|envs|resources|rules)/[\w./-]+)`", text
    )
    named += re.findall(r"`((?:workflow_scripts|\.ci)/[\w./-]+)`", text)
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    missing = [name for name in named if not (ROOT / name).exists()]
    missing += [link for link in links if link and not (path.parent / link).exists()]
    assert not missing, f"{path.name} names {missing}"


def test_readme_stays_short():
    assert (ROOT / "README.md").stat().st_size <= 7 * 1024
