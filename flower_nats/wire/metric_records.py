"""The numbers of a MetricRecord, read from an object that a client pushes."""

import math
from collections.abc import Mapping
from itertools import islice

from google.protobuf.message import DecodeError

from flower_nats.wire import records_pb2 as records

_HEAD = b"MetricRecord "
"""The beginning of such an object (flwr 1.33 `common/inflatable.py`); a NUL ends its first line."""

_LONGEST = 64 * 1024
"""The largest object that is read, in bytes: a record of numbers for people is much smaller."""

_NUMBERS = ("double", "sint64", "uint64")
"""The fields with a single number; the others are lists of numbers."""

MOST_NUMBERS = 64
"""The most numbers that are read from one record."""

_LONGEST_NAME = 100
"""Characters; longer names are cut."""


def numbers_of(content: memoryview) -> Mapping[str, float | None]:
    """Return the numbers of an object by name; empty for other objects, and without lists.

    None stands for a value that is not finite.
    """
    if len(content) > _LONGEST or bytes(content[: len(_HEAD)]) != _HEAD:
        return {}
    _, _, body = bytes(content).partition(b"\0")
    try:
        record = records.MetricRecord.FromString(body)
    except DecodeError:
        return {}
    found: dict[str, float | None] = {}
    for item in islice(record.items, MOST_NUMBERS):
        kind = item.value.WhichOneof("value")
        if kind in _NUMBERS:
            number = float(getattr(item.value, kind))
            found[item.key[:_LONGEST_NAME]] = number if math.isfinite(number) else None
    return found
