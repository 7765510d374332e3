"""Captions that the config names: a file of captions per class, or OpenAI's templates."""

from pathlib import Path

import yaml

from foretune.core.errors import ForetuneError

TEMPLATES = Path(__file__).with_name("openai_templates.yaml")


def is_caption_file(caption: str | list[str] | None) -> bool:
    """Return whether a caption of the config is a file of captions per class, not a template."""
    return isinstance(caption, str) and "{}" not in caption


def format_caption(caption: str | list[str]) -> str:
    """Return a caption of the config or of a manifest as words for people."""
    if is_caption_file(caption):
        return f"the captions of each class in {Path(str(caption)).name}"
    if isinstance(caption, str):
        return caption
    more = f" and {len(caption) - 3} more" if len(caption) > 3 else ""
    return "; ".join(caption[:3]) + more


def read_caption(where: str, caption: str | list[str], names: list[str]) -> str | list[str]:
    """Return a caption of the config, in which `openai` is replaced by OpenAI's templates.

    Args:
        where: dotted key of the dataset, for messages.
        names: of the dataset, in the config and at its source.

    Raises:
        ForetuneError: there are no such templates, or the file of captions does not exist.
    """
    if caption == "openai":
        return find_templates(where, names)
    if is_caption_file(caption) and not Path(str(caption)).is_file():
        raise ForetuneError(f"{where}.caption: no such file: {caption}")
    return caption


def find_templates(where: str, names: list[str]) -> list[str]:
    """Return OpenAI's templates for a dataset; capitals, blanks and signs in names do not count.

    Raises:
        ForetuneError: none of the names is known.
    """
    published = yaml.safe_load(TEMPLATES.read_text())
    by_name = {
        simplify_name(name): entry["templates"]
        for dataset, entry in published.items()
        for name in (dataset, *entry.get("also", []))
    }
    # The hub's names have an owner, and some a prefix.
    for name in (simplify_name(name.split("/")[-1].removeprefix("wds_")) for name in names):
        if name in by_name:
            return by_name[name]
    raise ForetuneError(
        f"{where}.caption: there are no templates of OpenAI for {names[0]}; give templates, or "
        f"name the dataset as one of {', '.join(published)}"
    )


def simplify_name(name: str) -> str:
    """Return the letters and digits of a name in lower case."""
    return "".join(filter(str.isalnum, name.casefold()))
