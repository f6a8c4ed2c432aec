"""The facts about a call's wire that handlers need. The transports provide them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wire:
    """Facts of one wire, as stock clients use it. Times are in seconds."""

    longest_hold: float
    """How long an answer may be held: less than clients, and servers in between, allow."""

    answer_within: float | None
    """After this time a call that is not a stream is answered as unavailable; None for never."""

    follows_on: bool
    """Whether a client that follows a log calls again if its stream ends early. Other clients take
    the end of the stream for the end of the log."""

    answer_room: int
    """The most bytes of large answers that clients have not taken yet."""

    keeps_connection: bool
    """Whether a client makes its calls over one connection until that breaks."""


GRPC = Wire(
    # Below the 60 s that balancers allow a quiet call; gRPC clients set no limit of their own.
    longest_hold=50.0,
    answer_within=None,
    follows_on=True,
    # The library has a copy of each answer.
    answer_room=256 * 1024 * 1024,
    keeps_connection=True,
)

HTTP = Wire(
    # Clients give up after 30 s without an answer (flwr 1.42 `supercore/protobuf/client.py`).
    longest_hold=20.0,
    answer_within=27.0,
    follows_on=False,
    answer_room=1024 * 1024 * 1024,
    keeps_connection=False,
)
