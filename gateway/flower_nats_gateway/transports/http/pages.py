"""Pages over HTTP: reads their requests, and answers with restrictions for browsers."""

from collections.abc import Iterable
from urllib.parse import parse_qsl, urlsplit

from flower_nats_gateway.api.login_html import STYLE_HASH
from flower_nats_gateway.api.page import Page, PageRequest
from flower_nats_gateway.transports.http.errors import Answer, Headers

_FIELDS = 16
"""The most fields of a form or a query."""

_FORM = b"application/x-www-form-urlencoded"

_POLICY = (
    f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)

_HEADERS: Headers = (
    (b"content-security-policy", _POLICY.encode()),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
)

HTML = b"text/html; charset=utf-8"

_ZIP = b"application/zip"

_FROM_HERE = {"same-origin", "none"}
"""Values that browsers send for requests that no other site has caused."""


def read_page_request(
    *,
    is_post: bool,
    query: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes,
    address: str,
) -> PageRequest:
    """Return the request of a browser; a body that is no form counts as an empty form."""
    said = {name.lower(): value for name, value in headers}
    kind = said.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return PageRequest(
        is_post=is_post,
        query=_fields(query),
        form=_fields(body) if is_post and kind == _FORM else {},
        from_elsewhere=_is_from_elsewhere(said),
        address=address,
    )


def page_answer(page: Page) -> Answer:
    """Return the answer to a browser."""
    if (file := page.attachment) is not None:
        disposition = (b"content-disposition", f'attachment; filename="{file.name}"'.encode())
        return Answer(page.status, file.content, (*_HEADERS, disposition), _ZIP)
    location = ((b"location", page.location.encode()),) if page.location else ()
    return Answer(page.status, page.html.encode(), (*_HEADERS, *location), HTML)


def _is_from_elsewhere(said: dict[bytes, bytes]) -> bool:
    site = said.get(b"sec-fetch-site")
    if site is not None:
        return site.decode("latin-1") not in _FROM_HERE
    origin, host = said.get(b"origin"), said.get(b"host", b"")
    try:
        return origin is not None and urlsplit(origin).netloc != host
    except ValueError:
        return True


def _fields(text: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(text.decode("utf-8"), keep_blank_values=True, max_num_fields=_FIELDS))
    except ValueError:
        return {}
