"""Read a study's file: YAML without its traps, and values that JSON has, too."""

from pathlib import Path
from typing import Any

import yaml

from foretune.core.errors import ForetuneError

# More than any study has. Python prints no integers of more bits.
MOST_VALUES, MOST_LEVELS, MOST_BITS = 1_000_000, 50, 1000


class UniqueKeyLoader(yaml.SafeLoader):
    """Load YAML, and refuse what has another effect than it seems to have.

    YAML would drop the first of two equal keys of a mapping. Aliases of aliases make endless values
    of a few lines.
    """

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node and count_values(node, {}, ()) > MOST_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {MOST_VALUES:,} values")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise yaml.YAMLError(
                    f"{key.value}: appears twice, in lines {lines[key.value]} and {line}"
                )
            lines[key.value] = line
        return super().construct_mapping(node, deep)


def count_values(node: yaml.Node, counts: dict[int, int], above: tuple[int, ...]) -> int:
    """Return the number of values that a node of YAML stands for, aliases included.

    Args:
        counts: numbers by the nodes' ids, which are filled in.
        above: ids of the nodes that contain it.

    Raises:
        YAMLError: a value contains itself, or lies below more than MOST_LEVELS others.
    """
    if id(node) in above or len(above) > MOST_LEVELS:
        what = "contains itself" if id(node) in above else f"has more than {MOST_LEVELS} levels"
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a value that {what}")
    if id(node) not in counts:
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in children for child in pair]
        inner = (*above, id(node))
        counts[id(node)] = 1 + sum(count_values(child, counts, inner) for child in children)
    return counts[id(node)]


def read_study(path: Path | str) -> dict:
    """Return a study's config as its file has it, unchecked and without defaults.

    Raises:
        ForetuneError: the file cannot be read or has no keys; the message names it.
    """
    try:
        config = yaml.load(Path(path).read_text(), UniqueKeyLoader)
    except Exception as error:  # PyYAML has its own, and those of Python for values such as dates
        raise ForetuneError(f"{path}: cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ForetuneError(f"{path}: not a study: it has no keys")
    return config


def copy_as_json(value: Any, where: str) -> Any:
    """Return a copy of a value with all keys as texts, as JSON, and so the rules' scripts, have it.

    Raises:
        ForetuneError: a key or a value is of a kind that JSON does not have.
    """
    if isinstance(value, list):
        return [copy_as_json(item, f"{where}{number}.") for number, item in enumerate(value)]
    if isinstance(value, dict):
        if odd := [key for key in value if type(key) not in (str, int)]:
            raise ForetuneError(f"{where}{odd[0]}: this key is not a text; put it into quotes")
        copied = {str(key): copy_as_json(item, f"{where}{key}.") for key, item in value.items()}
        if len(copied) < len(value):
            raise ForetuneError(f"{where[:-1]}: a key appears twice, as a number and as a text")
        return copied
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise ForetuneError(f"{where[:-1]}: the number is too large")
    if not isinstance(value, str | int | float | None):
        kind = type(value).__name__
        raise ForetuneError(f"{where[:-1]}: YAML reads a {kind}; put it into quotes for a text")
    return value
