"""How calls end: counted for all, and logged where somebody should look."""

import time
from collections import Counter

from flower_nats.logs import get_logger
from flower_nats.metrics import Durations, Metric, by_label
from flower_nats.model.errors import ApiError, ErrorCode, Unavailable
from flower_nats.wire.methods import Method
from flower_nats_gateway.calls.call import Call

log = get_logger(__name__)

_EXPECTED = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.STREAM_ENDS, ErrorCode.OVERLOADED})

_OK = "OK"


class Outcomes:
    """The outcomes of all calls of a gateway."""

    def __init__(self) -> None:
        self._ended: Counter[tuple[str, str]] = Counter()
        self._faults: Counter[str] = Counter()
        self._seconds: dict[str, Durations] = {}

    def served(self, call: Call) -> None:
        """Count a call that was answered."""
        name = _name(call.method)
        self._ended[(name, _OK)] += 1
        durations = self._seconds.get(name)
        if durations is None:
            durations = self._seconds[name] = Durations()
        durations.note(time.monotonic() - call.began_at)

    def refusal(self, method: Method, exc: Exception, peer: str) -> ApiError:
        """Count and log a call that was not answered; return the refusal that its caller gets.

        A fault of ours must not end a stock client, and a retry may well meet a healthy replica. So
        it looks like an outage to the caller. `faults_total` tells it from one.
        """
        if isinstance(exc, ApiError):
            error = exc
        else:
            self._faults[_name(method)] += 1
            log.error("call_failed", rpc=_name(method), exc_info=exc)
            error = Unavailable(repr(exc))
        self._ended[(_name(method), error.code.name)] += 1
        if error.code not in _EXPECTED:
            log.warning(
                "call_refused",
                rpc=_name(method),
                code=error.code.name,
                reason=error.detail,
                peer=peer,
            )
        return error

    def metrics(self) -> list[Metric]:
        """Return the counts."""
        ended = tuple(
            ({"rpc": rpc, "code": code}, float(count)) for (rpc, code), count in self._ended.items()
        )
        return [
            Metric("calls_total", "Calls that have ended, by method and outcome.", ended),
            *self._latencies(),
            by_label(
                "faults_total",
                "Calls that met a fault in this program, which is a bug, by method.",
                "rpc",
                {rpc: float(count) for rpc, count in self._faults.items()},
            ),
        ]

    def _latencies(self) -> list[Metric]:
        if not self._seconds:
            return []
        durations = tuple(({"rpc": rpc}, one) for rpc, one in self._seconds.items())
        meaning = (
            "Seconds from a call to its answer, by method; PullMessages and the like are held."
        )
        return [Metric("call_seconds", meaning, durations=durations)]


def _name(method: Method) -> str:
    return f"{method.api}.{method.name}"
