import shutil

import pytest

from checkout import ROOT
from foretune.core import code_digest as digests
from foretune.core.code_digest import code_digest

RULES = (
    "encoders.encode", "measures.compute", "training.finetune", "training.linear_probe",
    "evaluation.finetuned", "report.build", "data.prepare",
)  # fmt: skip


@pytest.fixture
def library(monkeypatch, tmp_path):
    folder = tmp_path / "foretune"
    shutil.copytree(ROOT / "workflow_scripts/foretune", folder)
    monkeypatch.setattr(digests, "LIBRARY", folder)
    return folder


def changed_by(path, text):
    """The rules' modules whose digest another text changes."""
    before = {name: code_digest(name) for name in RULES}
    path.write_text(text)
    return {name for name in RULES if code_digest(name) != before[name]}


def append(path, text):
    return changed_by(path, path.read_text() + text)


def test_code_digest_follows_imports(library):
    code = "\nCHANGED = True\n"
    encoding = {"encoders.encode", "training.finetune", "evaluation.finetuned"}
    assert append(library / "encoders/loading.py", code) == encoding
    assert append(library / "measures/clustering.py", code) == {"measures.compute"}
    # `from foretune.measures import alignment` imports a module by its bare name.
    assert append(library / "measures/alignment.py", code) == {
        "measures.compute", "evaluation.finetuned",
    }  # fmt: skip
    # Reading a prepared dataset and writing one are two modules: a new source trains nothing.
    assert append(library / "data/sources/local.py", code) == {"data.prepare"}


def test_code_digest_ignores_comments_docstrings_and_layout(library):
    path = library / "encoders/loading.py"
    text = path.read_text()
    name = text[text.index("def load_model") :].split("(")[0]
    for comment in ("# a comment\n", "\n\n"):
        assert append(path, comment) == set()
    first_docstring = text[: text.index('"""', 3) + 3]
    assert changed_by(path, text.replace(first_docstring, '"""Other words."""')) == set()
    assert changed_by(path, text.replace(name, "def load_another")) != set()


def test_code_digest_leaves_out_core(library):
    assert append(library / "core/files.py", "\nCHANGED = True\n") == set()


def test_code_digest_refuses_an_unknown_module():
    with pytest.raises(ValueError, match=r"no module training.finetun "):
        code_digest("training.finetun")
