"""The versions of Flower that were tried with this runtime (`make matrix`)."""

from packaging.version import InvalidVersion, Version

NEWEST = (1, 42)
"""The newest version that was tried, without its last number."""


def is_untried(version: str) -> bool:
    """Whether a client of this version of flwr is newer than all that were tried."""
    try:
        return Version(version).release[:2] > NEWEST
    except InvalidVersion:
        return False
