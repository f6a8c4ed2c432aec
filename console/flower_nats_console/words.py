"""Numbers as people read them."""

_LONG = (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1))
"""Units of durations: the first, the one beside it, and the seconds of both."""

_UNITS = ("B", "kB", "MB", "GB", "TB")


def bytes_in_words(number: float) -> str:
    """Return a number of bytes with its unit."""
    for unit in _UNITS:
        if number < 1000 or unit == _UNITS[-1]:
            return f"{number:.0f} {unit}" if unit in ("B", "kB") else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError


def seconds_in_words(seconds: float | None) -> str:
    """Return a duration in its two largest units; empty for none."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, smaller, length, part in _LONG:
        if whole >= length:
            return f"{whole // length} {unit} {whole % length // part} {smaller}"
    return f"{whole} s"


def age_in_words(seconds: float | None) -> str:
    """Return how long ago something was, roughly; empty for what is not known."""
    if seconds is None:
        return ""
    if seconds < 1:
        return "just now"
    for unit, _, length, _ in _LONG:
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def ms_in_words(ms: float | None) -> str:
    """Return a duration given in milliseconds; empty for none."""
    return seconds_in_words(None if ms is None else ms / 1000)


_SAME_TIME = 0.5
"""Seconds of difference that say nothing of a clock: the way of a call is in it, too."""

_CLOCK_OFF = 2.0
"""Seconds by which a clock is off worth telling: a node that is 5 s ahead is refused."""


def clock_in_words(ahead: float) -> str:
    """Return how a clock that is so many seconds ahead goes beside ours."""
    if abs(ahead) < _SAME_TIME:
        return "right"
    return f"{seconds_in_words(abs(ahead))} {'ahead' if ahead > 0 else 'behind'}"


def clock_is_off(ahead: float) -> bool:
    """Whether somebody should set this clock."""
    return abs(ahead) > _CLOCK_OFF


_YEAR = 365.0 * 24
"""Hours."""


def figure_in_words(number: float | None) -> str:
    """Return a number of an app with six digits that count."""
    return "–" if number is None else f"{number:.6g}"


def hours_in_words(hours: float) -> str:
    """Return a long duration, roughly."""
    if hours > _YEAR:
        return "more than a year"
    return f"about {hours:.0f} hours" if hours < 48 else f"about {hours / 24:.0f} days"


def plural(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun."""
    return f"{number} {one if number == 1 else many or one + 's'}"
