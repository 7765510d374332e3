"""Changes of code that change a digest, and changes that do not."""

import ast
import shutil
from pathlib import Path

import pytest

from checkout import ROOT
from foretune.core import code_digest as digests
from foretune.core.code_digest import (
    LIBRARY,
    code_digest,
    dump_syntax,
    parse_module,
    remember_code_digests,
)

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
    """Write `text` to `path`; return the modules of RULES whose digest has changed."""
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


def test_remembered_digests_follow_the_library(library, monkeypatch, tmp_path):
    store = tmp_path / "digests.json"
    before = {name: code_digest(name) for name in RULES}
    assert {name: remember_code_digests(store)(name) for name in RULES} == before
    with monkeypatch.context() as patched:
        patched.setattr(digests, "code_digest", None)  # nothing is parsed again
        assert {name: remember_code_digests(store)(name) for name in RULES} == before
    append(library / "measures/clustering.py", "\nCHANGED = True\n")
    after = {name: remember_code_digests(store)(name) for name in RULES}
    assert {name for name in RULES if after[name] != before[name]} == {"measures.compute"}
    for broken in ("", "[]", '{"library": 1}'):
        store.write_text(broken)
        assert remember_code_digests(store)("data.prepare") == after["data.prepare"]
    store.unlink()
    store.mkdir()  # it cannot be written
    assert remember_code_digests(store)("data.prepare") == after["data.prepare"]


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


def test_parse_module_finds_every_form_of_import():
    source = b"""
import foretune.data.prepared
from foretune import measures
from foretune.measures import alignment
import foretuned.other

def load():
    from foretune.encoders.loading import load_model
"""
    assert set(parse_module(source)[1]) == {
        "data.prepared", "measures", "measures.alignment", "encoders.loading",
        "encoders.loading.load_model",
    }  # fmt: skip


def test_parse_module_refuses_relative_imports():
    with pytest.raises(ValueError, match="line 2: relative imports are not followed"):
        parse_module(b"import ast\nfrom .prepared import read_split\n")


def test_dump_syntax_does_not_depend_on_the_version_of_python():
    """Python 3.12 added `type_params`, and 3.13 leaves out empty lists in `ast.dump`."""
    text = dump_syntax(ast.parse("def f(x, *, y=None):\n    return x or None\n"))
    assert text == (
        "Module(body=[FunctionDef(name='f',args=arguments(args=[arg(arg='x')],"
        "kwonlyargs=[arg(arg='y')],kw_defaults=[Constant()]),"
        "body=[Return(value=BoolOp(op=Or(),values=[Name(id='x',ctx=Load()),Constant()]))])])"
    )
    different = ["f()", "f(x)", "f(None)", "f(*x)", "f([])", "f(0)", "f(False)", "f('')", "f(b'')"]
    assert len({dump_syntax(ast.parse(code)) for code in different}) == len(different)


# Files of the library that are not code -> why a change of them reruns what it concerns.
DATA_FILES = {
    "analysis/paper_tables.csv": "workflow_scripts/foretune/analysis/paper_tables.csv",  # an input
    "report/page/*": "REPORT_PAGE.glob",  # inputs
    "data/sources/known_sources.yaml": "get_known_source",  # its facts are a param
    "core/openai_templates.yaml": "get_caption",  # the templates are a param
    "core/config.schema.yaml": "check_config",  # defaults reach the rules as params
}


def test_every_data_file_of_the_library_is_known_to_a_rule():
    rules = "".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")))
    files = {
        path.relative_to(LIBRARY)
        for path in LIBRARY.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    for pattern, named in DATA_FILES.items():
        matching = {path for path in files if path.match(pattern)}
        assert matching and named in rules, pattern
        files -= matching
    # What jobs ask of a cluster changes no result.
    assert files == {Path("planning/architectures.csv")}
