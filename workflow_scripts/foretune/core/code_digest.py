"""Digests of the code behind a rule, so that a change of code reruns that rule and no other."""

import ast
import contextlib
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foretune.core.errors import ForetuneError
from foretune.core.files import digest_file, digest_json, write_json

LIBRARY = Path(__file__).parents[1]
# The room `core` moves bytes and parses arguments. What it computes (trials, defaults) reaches the
# rules as parameters, so that a change of it is noticed without a digest.
LEFT_OUT = "core"


def code_digest(module: str) -> str:
    """Return a digest of a library module and of all library modules that it imports, at any depth.

    Comments, docstrings and formatting do not count, nor does the room `core`.

    Args:
        module: dotted name below `foretune`, such as `training.finetune`.

    Returns:
        16 hexadecimal digits.

    Raises:
        ValueError: the library has no such module, or one of the modules has a relative import.
    """
    codes: dict[str, bytes] = {}

    def visit(name: str) -> None:
        path = LIBRARY / f"{name.replace('.', '/')}.py"
        if name in codes or name.split(".")[0] == LEFT_OUT or not path.is_file():
            return
        codes[name], imports = parse_module(path.read_bytes())
        for imported in imports:
            visit(imported)

    visit(module)
    if module not in codes:
        raise ValueError(f"foretune has no module {module} outside the room {LEFT_OUT}")
    return hashlib.sha256(b"\0".join(codes[name] for name in sorted(codes))).hexdigest()[:16]


def remember_code_digests(store: Path) -> Callable[[str], str]:
    """Return `code_digest` with a memory in the file `store`, until a file of the library changes.

    Otherwise, parsing the library takes a second of each run of Snakemake.
    """
    files = {str(path.relative_to(LIBRARY)): path for path in sorted(LIBRARY.rglob("*.py"))}
    library = digest_json({name: digest_file(path) for name, path in files.items()})
    try:
        digests = json.loads(store.read_text())[library]
    except (OSError, ValueError, LookupError, TypeError):
        digests = {}

    def remembered(module: str) -> str:
        if module not in digests:
            digests[module] = code_digest(module)
            # A folder that cannot be written to keeps nothing.
            with contextlib.suppress(OSError, ForetuneError):
                write_json({library: digests}, store)
        return digests[module]

    return remembered


@functools.cache  # all rules ask for digests, and parsing takes a second of a dry run
def parse_module(source: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return a module's code without its docstrings, and the library modules it may import.

    `from foretune.a import b` imports either the module `a.b` or a name of the module `a`. Both
    are returned, and the caller skips those that do not exist.
    """
    tree = ast.parse(source)
    imports: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"line {node.lineno}: relative imports are not followed")
            parts = (node.module or "").split(".")
            if parts[0] == "foretune":
                imports.append(".".join(parts[1:]))
                imports += [".".join([*parts[1:], alias.name]) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            imports += [name.partition(".")[2] for name in names if name.startswith("foretune.")]
        elif (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return dump_syntax(tree).encode(), tuple(name for name in imports if name)


def dump_syntax(node: Any) -> str:
    """Return a syntax tree as text, without its empty fields.

    `ast.dump` writes them or not depending on the version of Python, and newer versions add fields
    that are mostly empty. Its digests would rerun a whole study after an update of Python.
    """
    if isinstance(node, list):
        return f"[{','.join(map(dump_syntax, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [
        f"{name}={dump_syntax(value)}"
        for name, value in ast.iter_fields(node)
        if value not in (None, [])
    ]
    return f"{type(node).__name__}({','.join(fields)})"
