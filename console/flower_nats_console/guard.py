"""What every request passes: whose host it names, where it comes from, and what browsers may do.

The console has no password of its own without accounts, so pages of others must not reach it through
the browser of somebody who may: neither by a name that they point at 127.0.0.1 (the Host header is
checked), nor by a form of theirs (Origin and Sec-Fetch-Site are, and nothing is changed by a GET).
"""

from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

_ONLY_ENCRYPTED = "max-age=31536000"
"""Of a console with TLS: for a year the browser asks it in no other way."""

_HARMLESS = {"GET", "HEAD"}


class Guard:
    """Refuses what comes from elsewhere, and sets the headers that bind browsers."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        """`hosts` are the names, without a port, under which the console may be asked.

        It may also be asked by the very address that it is reached at: no name points there.
        """
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                if scope["scheme"] == "https":
                    headers.setdefault("strict-transport-security", _ONLY_ENCRYPTED)
            await send(message)

        refusal = self._refusal(scope, Headers(scope=scope))
        app: ASGIApp = self._app if refusal is None else refusal
        await app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> PlainTextResponse | None:
        host = headers.get("host", "")
        reached_at, _ = scope["server"]
        name = _name_of(host)
        # A certificate may be for all names of one level.
        names = {name, f"*.{name.partition('.')[2]}"}
        if names.isdisjoint({*self._hosts, reached_at}):
            text = "This console does not answer to the name in the Host header.\n"
            return PlainTextResponse(text, 421)
        if scope["method"] in _HARMLESS:
            return None
        origin = headers.get("origin", "")
        same_site = headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
        if not same_site or origin != f"{scope['scheme']}://{host}":
            return PlainTextResponse(
                "Refused: the request did not come from a page of this console.\n", 403
            )
        return None


def _name_of(host: str) -> str:
    """Return the name in a Host header, without port and brackets."""
    name, colon, port = host.rpartition(":")
    without_port = name if colon and port.isdecimal() else host
    return without_port.removeprefix("[").removesuffix("]").lower()
