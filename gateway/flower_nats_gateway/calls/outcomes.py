"""How calls end: counted for all, and logged where somebody should look."""

from collections import Counter

from flower_nats.logs import get_logger
from flower_nats.metrics import Metric, by_label
from flower_nats.model.errors import ApiError, ErrorCode, Unavailable
from flower_nats.wire.methods import Method

log = get_logger(__name__)

_EXPECTED = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.STREAM_ENDS, ErrorCode.OVERLOADED})

_OK = "OK"


class Outcomes:
    """The outcomes of all calls of a gateway."""

    def __init__(self) -> None:
        self._ended: Counter[tuple[str, str]] = Counter()
        self._faults: Counter[str] = Counter()

    def served(self, method: Method) -> None:
        """Count a call that was answered."""
        self._ended[(_name(method), _OK)] += 1

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
            by_label(
                "faults_total",
                "Calls that met a fault in this program, which is a bug, by method.",
                "rpc",
                {rpc: float(count) for rpc, count in self._faults.items()},
            ),
        ]


def _name(method: Method) -> str:
    return f"{method.api}.{method.name}"
