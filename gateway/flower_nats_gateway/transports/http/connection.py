"""Facts about a request's connection that ASGI does not provide."""

import asyncio
from typing import Any, Protocol

CONNECTION = "flower_nats.connection"
"""The key of the connection in a request's scope."""


class Connection(Protocol):
    """The connection of a request."""

    @property
    def is_gone(self) -> bool:
        """Whether the client has closed it, or it broke."""

    @property
    def has_request(self) -> bool:
        """Whether all of the request has come."""

    def unread(self) -> bytes | None:
        """Return the unread part of the request's body, if all of the body has come."""

    def ends_with_client(self, task: asyncio.Task[Any] | None) -> None:
        """Cancel this task when the client has gone; None to cancel none."""

    def hold_little(self) -> None:
        """Make the system buffer little of an answer that may last for ever."""

    def cut_off(self) -> None:
        """End the connection at once."""
