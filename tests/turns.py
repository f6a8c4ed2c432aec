"""Tests with two ways: the suite runs each test one way, `make long` runs it both ways."""

import zlib
from collections.abc import Sequence
from typing import TypeVar

import pytest

_T = TypeVar("_T")


def in_turn(name: str, ways: Sequence[_T]) -> _T:
    """Return a test's way, the same in every session: each of two ways gets half of the tests."""
    return ways[zlib.crc32(name.encode()) % len(ways)]


def leave_to_long(item: pytest.Item, parameter: str, ways: Sequence[str]) -> None:
    """Mark a test `long` if its parameter has another value than `in_turn` chooses."""
    if not isinstance(item, pytest.Function):
        return
    others = {key: str(one) for key, one in item.callspec.params.items() if key != parameter}
    name = f"{item.originalname}{sorted(others.items())}"
    if item.callspec.params[parameter] != in_turn(name, ways):
        item.add_marker(pytest.mark.long)
