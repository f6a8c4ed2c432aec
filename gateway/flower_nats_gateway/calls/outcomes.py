"""How calls end: all are counted, and those that need attention are logged.

The labels of the counts come from our own tables of methods and refusals, so clients cannot add
labels.
"""

import time
from collections import Counter

from flower_nats.logs import get_logger
from flower_nats.metrics import FAULTS, Durations, Metric
from flower_nats.model.errors import ApiError, ErrorCode, Unavailable
from flower_nats.model.tried import NEWEST, is_untried
from flower_nats.wire.methods import Method
from flower_nats_gateway.calls.call import Call

log = get_logger(__name__)

_EXPECTED = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.STREAM_ENDS, ErrorCode.OVERLOADED})

_OK = "OK"

_VERSIONS = 1_000
"""The most client versions that are remembered, because a client may report any text."""

_Key = tuple[str, str]
"""A method: its API and its name."""


class Outcomes:
    """The outcomes of all calls of a gateway."""

    def __init__(self) -> None:
        self._ended: Counter[tuple[_Key, str]] = Counter()
        self._faults: Counter[_Key] = Counter()
        self._seconds: dict[_Key, Durations] = {}
        self._versions: set[str] = set()

    def served(self, call: Call) -> None:
        """Count a call that was answered."""
        key = _key(call.method)
        self._ended[(key, _OK)] += 1
        durations = self._seconds.get(key)
        if durations is None:
            durations = self._seconds[key] = Durations()
        durations.note(time.monotonic() - call.began_at)
        self._look_at_version(call)

    def refusal(self, call: Call, exc: Exception) -> ApiError:
        """Count and log a call that was not answered; return the refusal that its caller gets.

        A fault in this process must not end a stock client, and a retry may meet a healthy replica.
        So the caller sees an outage. `faults_total` counts such faults separately.
        """
        self._look_at_version(call)
        method = call.method
        if isinstance(exc, ApiError):
            error = exc
        else:
            self._faults[_key(method)] += 1
            log.error("call_failed", rpc=_name(method), exc_info=exc)
            error = Unavailable(repr(exc))
        self._ended[(_key(method), error.code.name)] += 1
        if error.code not in _EXPECTED:
            log.warning(
                "call_refused",
                rpc=_name(method),
                code=error.code.name,
                reason=error.detail,
                peer=call.peer if call.is_direct else call.client_address,
            )
        return error

    def _look_at_version(self, call: Call) -> None:
        """Log, once for each version, that a client is newer than all tried versions."""
        version = call.client_version
        if version in self._versions or len(self._versions) >= _VERSIONS:
            return
        self._versions.add(version)
        if is_untried(version):
            log.warning(
                "untried_flower_version",
                version=call.client_version_shown,
                client=call.client_name_shown,
                address=call.client_address,
                newest_tried=".".join(map(str, NEWEST)),
            )

    def metrics(self) -> list[Metric]:
        """Return the counts."""
        ended = tuple(
            ({**_labels(key), "code": code}, float(count))
            for (key, code), count in self._ended.items()
        )
        faults = tuple((_labels(key), float(count)) for key, count in self._faults.items())
        return [
            Metric("calls_total", "Calls that have ended, by method and outcome.", ended),
            *self._latencies(),
            Metric("faults_total", FAULTS, faults),
        ]

    def _latencies(self) -> list[Metric]:
        if not self._seconds:
            return []
        durations = tuple((_labels(key), one) for key, one in self._seconds.items())
        meaning = (
            "Seconds from a call to its answer, by method; PullMessages and the like are held."
        )
        return [Metric("call_seconds", meaning, durations=durations)]


def _key(method: Method) -> _Key:
    return method.api, method.name


def _labels(key: _Key) -> dict[str, str]:
    return dict(zip(("api", "method"), key, strict=True))


def _name(method: Method) -> str:
    return f"{method.api}.{method.name}"
