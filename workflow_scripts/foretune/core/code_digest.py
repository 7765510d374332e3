"""Digests of the code behind a rule, so that a change of code reruns that rule and no other."""

import ast
import functools
import hashlib
from pathlib import Path

LIBRARY = Path(__file__).parents[1]
# The room `core` moves bytes and parses arguments. What it computes reaches the rules as
# parameters, so that none of its changes can change a number unseen.
LEFT_OUT = "core"


def code_digest(module: str) -> str:
    """Digest of a library module and of every library module that it imports, at any depth.

    Comments, docstrings and formatting do not count, nor does the room `core`.

    Args:
        module: dotted name below `foretune`, such as `training.finetune`.

    Returns:
        16 hexadecimal digits.

    Raises:
        ValueError: the library has no such module.
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


@functools.cache  # every rule asks, and parsing takes a second of a dry run
def parse_module(source: bytes) -> tuple[bytes, list[str]]:
    """The syntax tree of a module without its docstrings, and the library modules it may import.

    `from foretune.a import b` may import the module `a.b` or a name of the module `a`: both are
    given, and those that do not exist are skipped later.
    """
    tree, imports = ast.parse(source), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "foretune":
            parent = (node.module or "").removeprefix("foretune").removeprefix(".")
            imports.append(parent)
            imports += [f"{parent}.{alias.name}".removeprefix(".") for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            imports += [name[9:] for name in names if name.startswith("foretune.")]
        elif (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree).encode(), [name for name in imports if name]
