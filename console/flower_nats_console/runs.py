"""The pages of runs."""

import asyncio

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from flower_nats_console import queries
from flower_nats_console.kept import KeptPages
from flower_nats_console.pages import data, page
from flower_nats_console.superlinks import Answer, Superlinks
from flower_nats_console.viewer import viewer

_A_PAGE = 50
"""Runs on one page."""

_ROUNDS, _NODES = 200, 100
"""Columns and rows of a timeline: more do not fit on a screen, and the page says how many there are."""

_LOG_BYTES = 64 * 1024
"""Bytes of a log that a page gets at a time."""

_STATES = ("active", "pending", "running", "completed", "failed", "stopped")


class RunPages:
    """Serves them."""

    def __init__(self, superlinks: Superlinks) -> None:
        self._superlinks = superlinks
        self._kept = KeptPages()

    async def listed(self, request: Request) -> Response:
        """List runs; the filters are in the URL."""
        state = queries.text(request, "state")
        number = queries.whole(request, "page", least=1, most=100_000)
        filters = {
            "state": state if state in _STATES else "",
            "federation": queries.as_written(request, "federation"),
            "text": queries.as_written(request, "text"),
        }
        found = await self._superlinks.ask(
            "Runs", viewer(request), **filters, limit=_A_PAGE, skip=(number - 1) * _A_PAGE
        )
        if queries.wants_json(request):
            return data(found)

        def to_page(other: int) -> str:
            return queries.url("/runs", **filters, page=other)

        return page(
            request,
            "runs",
            "Runs",
            found=found,
            filters=filters,
            states=_STATES,
            number=number,
            earlier=to_page(number - 1) if number > 1 else "",
            later=to_page(number + 1) if found["more"] else "",
        )

    async def shown(self, request: Request) -> Response:
        """Show one run."""
        if queries.wants_json(request):
            return data(await self._run(request))
        # Together, so that a page waits no longer than for one answer.
        found, timeline = await asyncio.gather(self._run(request), self._timeline(request))
        name = f"Run {found['run']['run_id']}"

        def make() -> Response:
            return page(request, "run", name, found=found, run=found["run"], timeline=timeline)

        return self._kept.page(request, (found, timeline), make)

    async def timeline(self, request: Request) -> Response:
        """Return the rounds × nodes of a run."""
        found = await self._timeline(request)
        return self._kept.page(request, (found,), lambda: data(found))

    async def log(self, request: Request) -> Response:
        """Return a piece of a run's log after a position."""
        after = queries.whole(request, "after", least=0, most=2**53)
        run_id = queries.run_id_of(request)
        return data(
            await self._superlinks.ask(
                "Log", viewer(request), run_id=run_id, after=after, at_most=_LOG_BYTES
            )
        )

    async def ask_to_stop(self, request: Request) -> Response:
        """Say what stopping a run will do."""
        found = await self._run(request)
        return page(request, "stop", f"Stop run {found['run']['run_id']}?", run=found["run"])

    async def stop(self, request: Request) -> Response:
        """Stop a run."""
        run_id = queries.run_id_of(request)
        await self._superlinks.stop_run(run_id, viewer(request))
        return RedirectResponse(f"/runs/{run_id}", 303)

    async def _run(self, request: Request) -> Answer:
        return await self._superlinks.ask("Run", viewer(request), run_id=queries.run_id_of(request))

    async def _timeline(self, request: Request) -> Answer:
        return await self._superlinks.ask(
            "Timeline",
            viewer(request),
            run_id=queries.run_id_of(request),
            message_type=queries.as_written(request, "type"),
            columns=_ROUNDS,
            rows=_NODES,
            skip=queries.whole(request, "skip", least=0, most=10_000_000),
        )
