"""Times for people to read, relative to the moment of a superlink's answer."""

from __future__ import annotations

from datetime import datetime


def ago(now: str, moment: str) -> str:
    """Say how long ago a moment was. Both are ISO 8601; `moment` is empty if it is not known."""
    return f"{age(now, moment)} ago" if moment else "at an unknown time"


def age(now: str, moment: str) -> str:
    """Say how long ago a state began."""
    seconds = (datetime.fromisoformat(now) - datetime.fromisoformat(moment)).total_seconds()
    return duration(seconds)


def duration(seconds: float) -> str:
    """Say how long a time is."""
    seconds = max(0, round(seconds))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 2 * 3600:
        return f"{seconds // 60} min"
    if seconds < 2 * 86400:
        return f"{seconds // 3600} h"
    return f"{seconds // 86400} days"
