"""The page of errors."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flower_nats_console import queries
from flower_nats_console.pages import data, page
from flower_nats_console.superlinks import Superlinks
from flower_nats_console.viewer import viewer


class ErrorPages:
    """Serves it."""

    def __init__(self, superlinks: Superlinks) -> None:
        self._superlinks = superlinks

    def routes(self) -> list[Route]:
        """Return where it is."""
        return [Route(path, self.listed, methods=["GET"]) for path in ("/errors", "/errors.json")]

    async def listed(self, request: Request) -> Response:
        """List errors, grouped by what they say; the filter is in the URL."""
        federation = queries.text(request, "federation")
        found = await self._superlinks.ask("Errors", viewer(request), federation=federation)
        if queries.wants_json(request):
            return data(found)
        return page(request, "errors", "Errors", found=found, federation=federation)
