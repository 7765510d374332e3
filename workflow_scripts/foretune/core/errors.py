"""ForetuneError, the one kind of error that users see."""

import unicodedata

LONGEST_LINE = 2000  # characters of a message


class ForetuneError(Exception):
    """A problem that the user can fix. Scripts print it without a traceback.

    Messages quote names and values from files, and what libraries say of them. They are shown
    without characters that would change the terminal, and long lines without their middle.
    """

    def __str__(self) -> str:
        lines = super().__str__().strip().split("\n")
        short = [n if len(n) <= LONGEST_LINE else f"{n[:1000]} […] {n[-500:]}" for n in lines]
        shown = "\n".join(short)
        return "".join(ascii(c)[1:-1] if is_control(c) else c for c in shown)


def is_control(character: str) -> bool:
    """Return whether a character does something other than stand in a line of text."""
    if character in "\n\u200c\u200d":  # the latter two join letters and emoji
        return False
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
