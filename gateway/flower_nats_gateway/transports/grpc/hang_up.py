"""How a gateway ends the connections of its clients.

gRPC's own stop of a server answers CANCELLED to calls that arrive before their callers know of it,
and stock clients end after that. A closed connection shows as UNAVAILABLE, and stock clients call
again.
"""

import asyncio
import socket
import time
from collections.abc import Collection
from contextlib import suppress

from flower_nats_gateway.calls.in_hand import CallsInHand
from flower_nats_gateway.transports.open_sockets import is_listening, open_sockets, peer_of

_LOOK_SECONDS = 0.05


async def hang_up(ports: Collection[int], in_hand: CallsInHand, within: float) -> None:
    """Stop listening on these ports, and close each connection once it has no open call.

    Connections with open calls after `within` seconds are cut off.
    """
    deadline = time.monotonic() + within
    while True:
        out_of_time = time.monotonic() >= deadline
        open_ones = 0
        for one in open_sockets(ports):
            if is_listening(one) or out_of_time or in_hand.are_done(peer_of(one)[1]):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            else:
                open_ones += 1
        if not open_ones:
            return
        await asyncio.sleep(_LOOK_SECONDS)
