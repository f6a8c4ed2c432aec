"""The page of events."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flower_nats.model.event import GROUPS, KINDS
from flower_nats_console import queries
from flower_nats_console.pages import data, page
from flower_nats_console.superlinks import Superlinks
from flower_nats_console.viewer import viewer

_A_PAGE = 100
"""Events on one page."""

_MOST_PAGES = 1_000
"""As many as have events: so many are kept."""


class EventPages:
    """Serves it."""

    def __init__(self, superlinks: Superlinks) -> None:
        self._superlinks = superlinks

    def routes(self) -> list[Route]:
        """Return where it is."""
        return [Route(path, self.listed, methods=["GET"]) for path in ("/events", "/events.json")]

    async def listed(self, request: Request) -> Response:
        """List events, newest first; the filters are in the URL."""
        kind, federation = queries.text(request, "kind"), queries.text(request, "federation")
        kind = kind if kind in GROUPS or kind in KINDS else ""
        number = queries.whole(request, "page", least=1, most=_MOST_PAGES)
        found = await self._superlinks.ask(
            "Events",
            viewer(request),
            kinds=[kind] if kind else [],
            federation=federation,
            limit=_A_PAGE,
            skip=(number - 1) * _A_PAGE,
        )
        if queries.wants_json(request):
            return data(found)

        def to_page(other: int) -> str:
            return queries.url("/events", kind=kind, federation=federation, page=other)

        return page(
            request,
            "events",
            "Events",
            found=found,
            kind=kind,
            federation=federation,
            groups={group: _kinds_of(group) for group in GROUPS},
            number=number,
            earlier=to_page(number - 1) if number > 1 else "",
            later=to_page(number + 1) if found["more"] else "",
        )


def _kinds_of(group: str) -> dict[str, str]:
    return {name: kind.words for name, kind in KINDS.items() if kind.group == group}
