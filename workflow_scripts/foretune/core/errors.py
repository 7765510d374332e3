"""The one kind of error that is shown to users."""


class ForetuneError(Exception):
    """A problem that the user can mend. Scripts print it as one line, without a traceback."""
