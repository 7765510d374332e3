"""Format values as a reader sees them; an unknown value (None or NaN) becomes a dash."""

import pandas as pd

UNKNOWN_TEXT = "–"


def is_known(value) -> bool:
    """Return whether a value is neither None nor NaN."""
    return not pd.isna(value)


def format_percent(value) -> str:
    """Format a share as a percentage with one decimal."""
    return f"{100 * value:.1f}%" if is_known(value) else UNKNOWN_TEXT


def format_points(value) -> str:
    """Format a difference of shares in percentage points, with its sign and one decimal."""
    if not is_known(value):
        return UNKNOWN_TEXT
    return use_minus_sign(f"{round(100 * value, 1) + 0:+.1f}")  # + 0 turns −0.0 into 0.0


def format_number(value) -> str:
    """Format a number with three significant digits, including trailing zeros."""
    if not is_known(value):
        return UNKNOWN_TEXT
    if 100 <= abs(value) < 1e9:
        return format_plain(float(f"{value:.3g}"))
    return use_minus_sign(f"{value:#.3g}")


def format_plain(value) -> str:
    """Format a number that was chosen or counted, without trailing zeros."""
    if not is_known(value):
        return UNKNOWN_TEXT
    if float(value).is_integer() and abs(value) < 1e9:
        return use_minus_sign(f"{int(value)}")
    return use_minus_sign(f"{value:.3g}")


def format_decimal(value) -> str:
    """Format a number with two decimals."""
    if not is_known(value):
        return UNKNOWN_TEXT
    return use_minus_sign(f"{round(value, 2) + 0:.2f}")  # + 0 turns −0.00 into 0.00


def format_text(value) -> str:
    """Return a text, or a dash if it is empty."""
    return str(value) if is_known(value) and value != "" else UNKNOWN_TEXT


def use_minus_sign(number: str) -> str:
    """Replace hyphens by typographic minus signs."""
    return number.replace("-", "−")
