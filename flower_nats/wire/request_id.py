"""The header by which a balancer marks every attempt of the same call."""

import re
import uuid
from typing import Final

CLIENT_ADDRESS: Final = "flower-nats-client-address"
"""The header in which our balancer sends the client's address."""

REQUEST_ID: Final = "flower-nats-request-id"
"""Set by a balancer: new for each call of a client, and the same for all attempts at gateways."""

_FORMAT = re.compile(r"[0-9a-f-]{32,36}")


def is_request_id(given: str) -> bool:
    """Whether this is an id in the form that balancers set."""
    return _FORMAT.fullmatch(given) is not None


def new_request_id() -> str:
    """Return an id for a call that came without one."""
    return uuid.uuid4().hex
