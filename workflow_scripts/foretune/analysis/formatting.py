"""What a reader sees of a value; unknown ones are a dash."""

import pandas as pd


def known(value) -> bool:
    return not pd.isna(value)


def percent(value) -> str:
    return f"{100 * value:.1f}%" if known(value) else "–"


def points(value) -> str:
    return f"{round(100 * value, 1) + 0:+.1f}".replace("-", "−") if known(value) else "–"  # no −0.0


def number(value) -> str:
    if known(value) and 100 <= abs(value) < 1e9:
        return plain(float(f"{value:.3g}"))
    return f"{value:#.3g}".replace("-", "−") if known(value) else "–"


def plain(value) -> str:
    """A number that was chosen or counted, without digits that it does not have."""
    if known(value) and float(value).is_integer() and abs(value) < 1e9:
        return f"{int(value)}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−") if known(value) else "–"


def text(value) -> str:
    return str(value) if known(value) and value != "" else "–"
