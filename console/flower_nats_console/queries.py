"""What the query of a URL says, brought to what pages can use: a typing error is no error."""

from urllib.parse import parse_qs, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request

LONGEST_TEXT = 200
"""Characters of a text to filter by or to look for."""

_LONGEST_FORM = 16_384
"""Bytes of a form."""


def text(request: Request, name: str) -> str:
    """Return a text from the URL; empty if there is none."""
    return request.query_params.get(name, "")[:LONGEST_TEXT].replace("\0", "").strip()


def whole(request: Request, name: str, *, least: int, most: int) -> int:
    """Return a number from the URL; the nearest that is possible."""
    given = request.query_params.get(name, "")
    if not (given.isascii() and given.isdecimal() and len(given) < 20):
        return least
    return min(max(int(given), least), most)


async def form(request: Request) -> dict[str, list[str]]:
    """Return the fields of a form that was posted."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _LONGEST_FORM:
            raise HTTPException(413, "That is longer than any form here.")
    return parse_qs(body.decode("utf-8", "replace"))


def wants_json(request: Request) -> bool:
    """Whether a program asks."""
    return request.url.path.endswith(".json")


def url(path: str, **query: object) -> str:
    """Return a URL with what of a query is not empty."""
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path
