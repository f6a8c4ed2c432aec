"""Pages for people's browsers, whatever transport they come over."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PageRequest:
    """What a browser asks for."""

    is_post: bool
    """Whether it sends a form."""
    query: Mapping[str, str]
    form: Mapping[str, str] = field(repr=False)
    """What was filled in. Hidden: there may be a password in it."""
    from_elsewhere: bool
    """Whether the page of another site has made the browser ask."""
    address: str
    """Address of the client, empty if that is not known."""


@dataclass(frozen=True)
class Attachment:
    """A file that a browser is to store."""

    name: str
    content: bytes = field(repr=False)
    """A zip archive."""


@dataclass(frozen=True)
class Page:
    """What a browser is answered."""

    status: int
    html: str
    location: str = ""
    """Where the browser is to go on; empty to stay."""
    attachment: Attachment | None = None
    """What the browser gets in the place of a page."""


ServePage = Callable[[PageRequest], Awaitable[Page]]
