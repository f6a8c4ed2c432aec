"""The pages of the console, and what becomes of errors."""

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from flower_nats.broker.core_connection import NotPermitted
from flower_nats.logs import get_logger
from flower_nats.model import certificates
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode, Unavailable
from flower_nats_console import queries
from flower_nats_console.guard import Guard
from flower_nats_console.live import MOST_STREAMS, Live
from flower_nats_console.overview import overview
from flower_nats_console.pages import STATIC, data, page
from flower_nats_console.runs import RunPages
from flower_nats_console.superlinks import Answer, Superlinks
from flower_nats_console.viewer import has_token, log_in, log_out, viewer

log = get_logger(__name__)

_SMALL = 500
"""Bytes below which nothing is gained by compressing an answer."""

_TOLD = {
    ErrorCode.RUN_ID_NOT_FOUND: (
        404,
        "There is no such run here, or it was deleted.",
        "See the list of runs.",
    ),
    ErrorCode.RUN_ALREADY_FINISHED: (
        409,
        "The run has already ended.",
        "Go back to it to see how it ended.",
    ),
}
"""What is said of some refusals, with what to do and the status of HTTP."""

_NO_SUPERLINK = (
    503,
    "No superlink answers.",
    "This page goes on by itself as soon as a superlink answers. If that takes long, "
    "`flower-nats status` says whether NATS, PostgreSQL and the superlinks run.",
)

_NOT_PERMITTED = (
    502,
    "NATS does not let this console ask superlinks.",
    "Start the console as the NATS user that is made for it: "
    "`flower-nats console --nats nats://console:PASSWORD@HOST:4222`.",
)


class Console:
    """Serves the overview and the live stream; `NodePages` and `RunPages` serve the others."""

    def __init__(self, superlinks: Superlinks, live: Live, certificate: Path | None = None) -> None:
        """`certificate` is what the console itself shows, if it speaks TLS."""
        self._certificate = certificate
        self._superlinks = superlinks
        self._live = live

    async def overview(self, request: Request) -> Response:
        """Answer: can I sleep?"""
        asking = viewer(request)
        try:
            # Together, so that a page waits no longer than for one answer.
            status, active, failed = await asyncio.gather(
                self._superlinks.ask("Status", asking),
                self._runs(asking, "active", limit=20),
                self._runs(asking, "failed", limit=5),
            )
        except ApiError as exc:
            if exc.code is not ErrorCode.FORBIDDEN_ACTION:
                raise
            # The runtime as a whole is for operators.
            return RedirectResponse("/runs", 303)
        own = certificates.in_file(self._certificate, "this console") if self._certificate else []
        found = overview(status, own)
        if queries.wants_json(request):
            findings = [vars(one) for one in found.findings]
            return data(
                {"state": found.state, "answer": found.answer, "findings": findings, **status}
            )
        return page(
            request,
            "overview",
            "Overview",
            found=found,
            status=status,
            active=active,
            failed=failed,
            now=active["now"],
        )

    async def _runs(self, asking: Caller, state: str, *, limit: int) -> Answer:
        return await self._superlinks.ask(
            "Runs", asking, state=state, federation="", text="", limit=limit, skip=0
        )

    async def login(self, request: Request) -> Response:
        """Ask for a token."""
        was_refused = bool(queries.text(request, "refused"))
        return page(request, "login", "Log in", was_refused=was_refused)

    async def live(self, request: Request) -> Response:
        """Begin a stream that tells a page when to look again."""
        if self._live.streams >= MOST_STREAMS:
            return PlainTextResponse("Too many pages are open.\n", 503)
        run_id = queries.number_or_none(queries.text(request, "run"))
        events = self._live.events(run_id)
        return StreamingResponse(
            events, media_type="text/event-stream", headers={"content-encoding": "identity"}
        )


def console_app(
    console: Console,
    runs: RunPages,
    more: Iterable[Route],
    hosts: Iterable[str],
    *,
    only_accounts: bool = False,
) -> Starlette:
    """Return the application; `hosts` are the names under which it may be asked, `more` other pages.

    `only_accounts`: of a runtime without accounts it shows nothing.
    """
    get = ["GET"]
    routes = [
        Route("/", console.overview, methods=get),
        Route("/overview.json", console.overview, methods=get),
        Route("/runs", runs.listed, methods=get),
        Route("/runs.json", runs.listed, methods=get),
        Route("/runs/{run_id:str}.json", runs.shown, methods=get),
        Route("/runs/{run_id:str}", runs.shown, methods=get),
        Route("/runs/{run_id:str}/timeline.json", runs.timeline, methods=get),
        Route("/runs/{run_id:str}/log.json", runs.log, methods=get),
        Route("/runs/{run_id:str}/stop", runs.ask_to_stop, methods=get),
        Route("/runs/{run_id:str}/stop", runs.stop, methods=["POST"]),
        *more,
        Route("/login", console.login, methods=get),
        Route("/login", log_in, methods=["POST"]),
        Route("/logout", log_out, methods=["POST"]),
        Route("/live", console.live, methods=get),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(Guard, hosts=hosts),
            Middleware(GZipMiddleware, minimum_size=_SMALL),
        ],
        exception_handlers={
            ApiError: _on_api_error,
            HTTPException: _on_http_error,
            Exception: _on_bug,
        },
    )
    app.state.only_accounts = only_accounts
    return app


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    if isinstance(error, Unavailable):
        log.warning("page_not_served", path=request.url.path, reason=error.detail)
        is_refused = isinstance(error, NotPermitted)
        return _told(request, *(_NOT_PERMITTED if is_refused else _NO_SUPERLINK))
    if error.code is ErrorCode.ACCOUNT_AUTHENTICATION_FAILED:
        if queries.wants_json(request) or "hx-request" in request.headers:
            return _told(
                request, 401, "You are not logged in, or your login has ended.", "Log in: /login."
            )
        return RedirectResponse("/login?refused=1" if has_token(request) else "/login", 303)
    if error.code in _TOLD:
        return _told(request, *_TOLD[error.code])
    log.warning("page_refused", path=request.url.path, reason=error.detail)
    status = 403 if error.code is ErrorCode.FORBIDDEN_ACTION else 400
    return _told(request, status, error.public_details or error.detail, "")


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = "There is no such page." if error.status_code == 404 else error.detail
    if error.status_code == 404 and error.detail != HTTPStatus(404).phrase:
        text = error.detail
    return _told(request, error.status_code, text, "")


async def _on_bug(request: Request, error: Exception) -> Response:
    log.error("page_failed", path=request.url.path, exc_info=error)
    text = "The console cannot show this page because of an error in the console."
    return _told(request, 500, text, "The log of the console has the details.")


def _told(request: Request, status: int, text: str, remedy: str) -> Response:
    if queries.wants_json(request):
        response = data({"error": text, "remedy": remedy})
        response.status_code = status
        return response
    goes_on = status in (_NO_SUPERLINK[0], _NOT_PERMITTED[0])
    return page(request, "error", text, status, text=text, remedy=remedy, goes_on=goes_on)
