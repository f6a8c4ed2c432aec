"""The header by which a balancer says that a call is one that it has made before."""

import re
import uuid
from typing import Final

REQUEST_ID: Final = "flower-nats-request-id"
"""Set by a balancer, anew for each call of a client and alike for its attempts at gateways."""

_FORMAT = re.compile(r"[0-9a-f-]{32,36}")


def request_id(given: str) -> str:
    """Return the id that came with a call if it is one, else a new one."""
    return given if _FORMAT.fullmatch(given) else uuid.uuid4().hex
