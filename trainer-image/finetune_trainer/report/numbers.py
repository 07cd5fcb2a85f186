"""Formats numbers and names for the report."""

import math
import re

_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_SMALLEST = 0.001
# A no-break space keeps number and sign on one line.
_PERCENT = "\u00a0%"


def size(size_bytes: int) -> str:
    """Return a file's size in decimal units, as storage providers bill it."""
    value, unit = float(size_bytes), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    if unit == 0:
        return f"{size_bytes} {'byte' if size_bytes == 1 else 'bytes'}"
    return f"{value:.2f} {_UNITS[unit]}" if value < 10 else f"{value:.{1 if value < 99.95 else 0}f} {_UNITS[unit]}"


def memory(mib: int) -> str:
    """Return GPU memory in GiB."""
    return f"{mib / 1024:.1f} GiB"


def duration(seconds: float) -> str:
    """Return a duration in its two largest units."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {left} s" if left else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def share(value: float) -> str:
    """Return a share from 0 to 1 in percent. Values near 1 are not shown as 100 %, values near 0 not as 0 %."""
    if not math.isfinite(value):
        return "not a number"
    if 0.9995 <= value < 1:
        return f"over 99.9{_PERCENT}"
    if 0 < value < 0.0005:
        return f"under 0.1{_PERCENT}"
    return f"{100 * value:.1f}".removesuffix(".0") + _PERCENT


def figure(value: float) -> str:
    """Return a loss or a divergence with three decimals, or four if three would show 0."""
    if not math.isfinite(value):
        return "not a number"
    if value and abs(value) < _SMALLEST:
        return f"{value:.4f}" if abs(value) >= _SMALLEST / 10 else f"{value:.0e}"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"


def words(name: str) -> str:
    """Return a CamelCase or camelCase name as words, acronyms as they are: `Near duplicates` of `nearDuplicates`."""
    parts = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+", name)
    lower = [part if part.isupper() and len(part) > 1 else part.lower() for part in parts]
    return " ".join([lower[0][:1].upper() + lower[0][1:], *lower[1:]]) if lower else name
