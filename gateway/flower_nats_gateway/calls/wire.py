"""What handlers must know of the wire that a call came over. The transports say it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wire:
    """Facts of one wire, as stock clients use it. Times are in seconds."""

    longest_hold: float
    """How long an answer may be held: less than clients, and what is in between, allow."""

    answer_within: float | None
    """After this time a call that is not a stream is answered as unavailable; None for never."""

    follows_on: bool
    """Whether a client that follows a log calls again where its stream has ended early. One that does
    not takes the end for the end of the log."""

    answer_room: int
    """Bytes of large answers that their clients have not taken yet."""

    keeps_connection: bool
    """Whether a client makes its calls over one connection until that breaks."""


GRPC = Wire(
    # Below the 60 s that balancers allow a quiet call; gRPC clients set no limit of their own.
    longest_hold=50.0,
    answer_within=None,
    follows_on=True,
    # The library has a copy of each.
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
