"""What a URL says, brought to what pages can use: a typing error in a query is no error."""

from urllib.parse import parse_qs, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request

LONGEST_TEXT = 200
"""Characters of a text to filter by or to look for."""

_LONGEST_FORM = 16_384
"""Bytes of a form."""


_LONGEST_ID = 20
"""Digits of the largest id, which has 64 bits."""


def as_written(request: Request, name: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text from the query with its spaces; empty if there is none."""
    return request.query_params.get(name, "")[:longest].replace("\0", "")


def text(request: Request, name: str) -> str:
    """Return a text from the query; empty if there is none."""
    return as_written(request, name).strip()


def number_or_none(text: str) -> int | None:
    """Return the id that a text is, of a run or a node; None if it is not one."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= _LONGEST_ID
    return int(text) if is_number and int(text) < 2**64 else None


def run_id_of(request: Request) -> int:
    """Return the run that a path names; raises `HTTPException` if that is not the id of one."""
    text = str(request.path_params["run_id"])
    run_id = number_or_none(text)
    if run_id is None:
        raise HTTPException(404, f"{text[:40]!r} is not the id of a run.")
    return run_id


def whole(request: Request, name: str, *, least: int, most: int) -> int:
    """Return a number from the query; the nearest that is possible."""
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
            raise HTTPException(413, "The form is too long.")
    return parse_qs(body.decode("utf-8", "replace"))


def wants_json(request: Request) -> bool:
    """Whether a program asks."""
    return request.url.path.endswith(".json")


def url(path: str, **query: object) -> str:
    """Return a URL with what of a query is not empty."""
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path
