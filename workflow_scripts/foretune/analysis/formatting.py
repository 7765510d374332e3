"""What a reader sees of a value; unknown ones are a dash."""

import pandas as pd


def is_known(value) -> bool:
    return not pd.isna(value)


def format_percent(value) -> str:
    return f"{100 * value:.1f}%" if is_known(value) else "–"


def format_points(value) -> str:
    return (
        f"{round(100 * value, 1) + 0:+.1f}".replace("-", "−") if is_known(value) else "–"
    )  # no −0.0


def format_number(value) -> str:
    if is_known(value) and 100 <= abs(value) < 1e9:
        return format_plain(float(f"{value:.3g}"))
    return f"{value:#.3g}".replace("-", "−") if is_known(value) else "–"


def format_plain(value) -> str:
    """A number that was chosen or counted, without digits that it does not have."""
    if is_known(value) and float(value).is_integer() and abs(value) < 1e9:
        return f"{int(value)}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−") if is_known(value) else "–"


def format_text(value) -> str:
    return str(value) if is_known(value) and value != "" else "–"
