"""The time at which a caller has signed."""

import time
from datetime import UTC, datetime

from flower_nats.model.errors import ApiError, ErrorCode

# The accepted age of a timestamp, exclusive (flwr 1.33 `common/constant.py`, SYSTEM_TIME_TOLERANCE
# and TIMESTAMP_TOLERANCE), in seconds.
_YOUNGEST = -5.0
OLDEST = 305.0


def parse_iso(timestamp: str) -> float:
    """Return the Unix time of an ISO 8601 text. Raises `ApiError` (INVALID_TIMESTAMP)."""
    try:
        moment = datetime.fromisoformat(timestamp)
        timestamp.encode("ascii")
    except ValueError as exc:
        raise ApiError(ErrorCode.INVALID_TIMESTAMP, f"{timestamp[:64]!r} is no time") from exc
    # Stock clients send a time with a zone. A time without one can only mean UTC.
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def check_age(moment: float) -> None:
    """Raise `ApiError` (INVALID_TIMESTAMP) for a time that is too old, or lies ahead."""
    age = time.time() - moment
    if not _YOUNGEST < age < OLDEST:
        raise ApiError(ErrorCode.INVALID_TIMESTAMP, f"the caller's clock is off by {-age:.0f} s")
