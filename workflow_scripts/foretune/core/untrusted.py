"""Checks of what a study or a table from a stranger asks for: no code, no files elsewhere."""

import ast
import os
import re
from collections.abc import Iterable

from foretune.core.errors import ForetuneError

# What a condition on a table's columns may consist of.
SYNTAX = (
    ast.Expression, ast.BoolOp, ast.boolop, ast.BinOp, ast.operator, ast.UnaryOp, ast.unaryop,
    ast.Compare, ast.cmpop, ast.Name, ast.expr_context, ast.Constant, ast.List, ast.Tuple,
    ast.Attribute, ast.Call, ast.keyword,
)  # fmt: skip
# Methods of a pandas column that only look at its values. Others write files, such as `to_csv`.
METHODS = {
    "str", "dt", "abs", "between", "isin", "isna", "isnull", "notna", "notnull", "contains",
    "endswith", "fullmatch", "len", "lower", "match", "startswith", "strip", "upper", "day",
    "month", "year", "index", "round",
}  # fmt: skip


def check_condition(where: str, condition: str) -> None:
    """Refuse a condition on a table's columns that does more than compare their values.

    pandas' `query` evaluates it, which can also call any method of a column and read variables.

    Raises ForetuneError, which names the key `where`.
    """
    # A column whose name is no identifier stands between backticks.
    text = re.sub(r"`[^`]*`", "column", condition)
    text = text.replace("&&", "&").replace("||", "|").replace("!", "not ").replace("not =", "!=")
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ForetuneError(f"{where}: {condition!r} is not a condition on columns") from None
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr not in METHODS:
            raise ForetuneError(f"{where}: {condition!r}: .{node.attr} is not allowed here")
        if (
            not isinstance(node, SYNTAX)
            or (isinstance(node, ast.Call) and not isinstance(node.func, ast.Attribute))
            or (isinstance(node, ast.BinOp) and makes_large_values(node))
        ):
            what = ast.unparse(node) if isinstance(node, ast.expr) else type(node).__name__
            raise ForetuneError(f"{where}: {condition!r}: {what} is not allowed here")


def makes_large_values(node: ast.BinOp) -> bool:
    """Return whether a calculation may make a text, list or number without bounds."""
    if isinstance(node.op, ast.Pow | ast.LShift):
        return True
    return isinstance(node.op, ast.Mult) and any(
        isinstance(part, ast.List | ast.Tuple)
        or (isinstance(part, ast.Constant) and not isinstance(part.value, int | float))
        for part in ast.walk(node)
    )


def lies_inside(folder: str | os.PathLike, path: str | os.PathLike) -> bool:
    """Return whether a path, which is relative to the folder or absolute, lies in the folder.

    Links are not followed: they are part of what somebody put there.
    """
    root = os.path.abspath(folder)
    return os.path.commonpath([root, os.path.abspath(os.path.join(root, path))]) == root


def refuse_outside(folder: str | os.PathLike, template: str, names: Iterable[str]) -> None:
    """Refuse paths that the values of a table lead out of its folder.

    The template, which is the user's own, may lead elsewhere: `/data/{file}` allows what lies below
    /data.

    Args:
        template: of the paths, with {column} for values of the table.
        names: the paths that it makes, relative to the folder.

    Raises ForetuneError, which names the path.
    """
    root = os.path.abspath(os.path.join(folder, os.path.dirname(template.split("{")[0])))
    for name in names:
        if not lies_inside(root, os.path.abspath(os.path.join(folder, name))):
            raise ForetuneError(
                f"{name}: lies outside {root}; if that is right, write the folder into `image`, "
                f"such as `/{{column}}` for whole paths"
            )
