"""ForetuneError, the one kind of error that users see."""


class ForetuneError(Exception):
    """A problem that the user can fix. Scripts print it as one line, without a traceback."""
