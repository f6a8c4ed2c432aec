"""What a request has to know of its connection, as far as ASGI does not tell."""

import asyncio
from typing import Any, Protocol

CONNECTION = "flower_nats.connection"
"""Where the scope of a request has its connection."""


class Connection(Protocol):
    """The connection of a request."""

    @property
    def is_gone(self) -> bool:
        """Whether the client has closed it, or it broke."""

    @property
    def has_request(self) -> bool:
        """Whether all of the request has come."""

    def unread(self) -> bytes | None:
        """Return what is unread of the request's body, if all of that has come."""

    def ends_with_client(self, task: asyncio.Task[Any] | None) -> None:
        """Cancel a task when the client has gone; None: no more."""

    def hold_little(self) -> None:
        """Have the system hold little of an answer that may last for ever."""

    def cut_off(self) -> None:
        """End it at once."""
