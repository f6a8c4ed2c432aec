"""Pages for browsers, independent of the transport."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PageRequest:
    """The request of a browser."""

    is_post: bool
    """Whether it sends a form."""
    query: Mapping[str, str]
    form: Mapping[str, str] = field(repr=False)
    """The fields of the form. Hidden, because a password may be among them."""
    from_elsewhere: bool
    """Whether a page of another site caused the request."""
    address: str
    """Address of the client, empty if unknown."""


@dataclass(frozen=True)
class Attachment:
    """A file for the browser to store."""

    name: str
    content: bytes = field(repr=False)
    """A zip archive."""


@dataclass(frozen=True)
class Page:
    """The answer to a browser."""

    status: int
    html: str
    location: str = ""
    """The address to which the browser is redirected; empty for none."""
    attachment: Attachment | None = None
    """A file in place of a page."""


ServePage = Callable[[PageRequest], Awaitable[Page]]
