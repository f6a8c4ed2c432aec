"""The pages that look for words in logs, and that show a log around a line."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flower_nats_console import queries
from flower_nats_console.pages import data, page
from flower_nats_console.superlinks import Superlinks
from flower_nats_console.viewer import viewer

_MOST_RUNS = 10_000_000


class LogPages:
    """Serves them."""

    def __init__(self, superlinks: Superlinks) -> None:
        self._superlinks = superlinks

    def routes(self) -> list[Route]:
        """Return where they are."""
        return [
            Route("/logs", self.search, methods=["GET"]),
            Route("/logs.json", self.search, methods=["GET"]),
            Route("/runs/{run_id:str}/log", self.around, methods=["GET"]),
        ]

    async def search(self, request: Request) -> Response:
        """Look for words; `skip`, `run` and `after` say where to go on: the answer before has told."""
        text, federation = queries.text(request, "q"), queries.text(request, "federation")
        found = await self._superlinks.ask(
            "SearchLogs",
            viewer(request),
            text=text,
            federation=federation,
            skip=queries.whole(request, "skip", least=0, most=_MOST_RUNS),
            run_id=queries.text(request, "run"),
            after=queries.whole(request, "after", least=0, most=2**53),
            line=queries.whole(request, "line", least=0, most=2**31),
        )
        goes_on = found["next"]
        further = ""
        if goes_on is not None:
            further = queries.url(
                request.url.path,
                q=text,
                federation=federation,
                skip=goes_on["skip"],
                run=goes_on["run_id"],
                after=goes_on["after"],
                line=goes_on["line"],
            )
        if queries.wants_json(request):
            return data({**found, "further": further})
        return page(
            request, "logs", "Logs", found=found, text=text, federation=federation, further=further
        )

    async def around(self, request: Request) -> Response:
        """Show a log around one of its lines."""
        run_id = queries.run_id_of(request)
        found = await self._superlinks.ask(
            "LogAround",
            viewer(request),
            run_id=run_id,
            position=queries.whole(request, "at", least=0, most=2**53),
            line=queries.whole(request, "line", least=0, most=2**31),
        )
        return page(request, "log", f"Log of run {run_id}", found=found, run_id=str(run_id))
