"""ForetuneError, the one kind of error that users see."""


class ForetuneError(Exception):
    """A problem that the user can fix. Scripts print it without a traceback.

    Names and values from files, and what libraries say of them, are shown without characters that
    would change the terminal.
    """

    def __str__(self) -> str:
        text = super().__str__().strip()
        return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
