"""The viewer: the only place that turns a request of a browser into a caller.

In a runtime with accounts a person logs in with a token of `flower-nats account`, which the browser then
brings in a cookie. Superlinks know whose it is. Without accounts nobody is asked, which is why the
console serves this machine alone.
"""

import uuid
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from flower_nats.model.account import account_token_hash
from flower_nats.model.caller import Caller

_COOKIE = "flower_nats_console"

_LONGEST_FORM = 4_096
"""Bytes; our tokens have about fifty."""


def _is_encrypted(request: Request) -> bool:
    return request.url.scheme == "https"


def _cookie(request: Request) -> str:
    """Return the name of the cookie.

    Over TLS its name has browsers take it from this very host alone, and send it encrypted only.
    """
    return f"__Host-{_COOKIE}" if _is_encrypted(request) else _COOKIE


def has_token(request: Request) -> bool:
    """Whether the browser brings a token, be it good or not."""
    return bool(request.cookies.get(_cookie(request)))


def viewer(request: Request) -> Caller:
    """Return the caller of a request. Each request has an id, so that its change happens once."""
    token = request.cookies.get(_cookie(request), "")
    return Caller(
        account_token=account_token_hash(token) if token else b"",
        client_name="console",
        request_id=uuid.uuid4().hex,
        accounts_required=request.app.state.only_accounts,
    )


async def log_in(request: Request) -> Response:
    """Keep the token of a form in the browser; whether it is good shows at the next page."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _LONGEST_FORM:
            raise HTTPException(413, "This is too long to be a token.")
    [token] = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[:1]
    token = token.strip()
    if not (token.isascii() and token.isprintable()):
        raise HTTPException(400, "A token has letters, digits, - and _ only.")
    response = RedirectResponse("/", 303)
    response.set_cookie(
        _cookie(request),
        token,
        httponly=True,
        samesite="strict",
        secure=_is_encrypted(request),
    )
    return response


async def log_out(request: Request) -> Response:
    """Forget the token."""
    response = RedirectResponse("/login", 303)
    response.delete_cookie(
        _cookie(request), httponly=True, samesite="strict", secure=_is_encrypted(request)
    )
    return response
