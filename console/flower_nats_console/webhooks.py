"""The page of notifications: which webhooks get which events, for operators."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.event import GROUPS, KINDS
from flower_nats_console import queries
from flower_nats_console.pages import data, page
from flower_nats_console.superlinks import Superlinks
from flower_nats_console.viewer import viewer


class WebhookPages:
    """Serves it. For an account that is not an operator, the page does not exist."""

    def __init__(self, superlinks: Superlinks) -> None:
        self._superlinks = superlinks

    def routes(self) -> list[Route]:
        """Return where it is."""
        return [
            Route("/webhooks", self.listed, methods=["GET"]),
            Route("/webhooks.json", self.listed, methods=["GET"]),
            Route("/webhooks", self.add, methods=["POST"]),
            Route("/webhooks/{webhook_id:int}/test", self.test, methods=["POST"]),
            Route("/webhooks/{webhook_id:int}/remove", self.remove, methods=["POST"]),
        ]

    async def listed(self, request: Request) -> Response:
        """List webhooks, and what could not be delivered."""
        with _for_operators():
            found = await self._superlinks.ask("Webhooks", viewer(request))
        if queries.wants_json(request):
            return data(found)
        return page(
            request,
            "webhooks",
            "Notifications",
            found=found,
            groups={group: _words(group) for group in GROUPS if group != "webhooks"},
            kinds=KINDS,
            told=_in_words,
        )

    async def add(self, request: Request) -> Response:
        """Add a webhook; show its secret, once."""
        form = await queries.form(request)
        with _for_operators():
            added = await self._superlinks.change(
                "AddWebhook",
                viewer(request),
                url=form.get("url", [""])[0],
                kinds=form.get("kind", []),
                federation=form.get("federation", [""])[0],
            )
        return page(request, "webhook_added", "Notifications: added", added=added)

    async def test(self, request: Request) -> Response:
        """Have an event sent to a webhook."""
        return await self._change(request, "TestWebhook")

    async def remove(self, request: Request) -> Response:
        """Remove a webhook."""
        return await self._change(request, "RemoveWebhook")

    async def _change(self, request: Request, question: str) -> Response:
        webhook_id = str(request.path_params["webhook_id"])
        with _for_operators():
            await self._superlinks.change(question, viewer(request), webhook_id=webhook_id)
        return RedirectResponse("/webhooks", 303)


@contextmanager
def _for_operators() -> Iterator[None]:
    """Tell others that there is no such page."""
    try:
        yield
    except ApiError as exc:
        if exc.code is not ErrorCode.FORBIDDEN_ACTION:
            raise
        raise HTTPException(404) from exc


def _words(group: str) -> str:
    return ", ".join(kind.words for kind in KINDS.values() if kind.group == group)


def _in_words(kinds: Sequence[str]) -> str:
    """Return kinds as people read them: the group in the place of all that are in it."""
    if set(KINDS) <= set(kinds):
        return "All events"
    words = []
    for group in GROUPS:
        of_group = [name for name, kind in KINDS.items() if kind.group == group]
        told = [name for name in of_group if name in kinds]
        words += [f"All of {group}"] if told == of_group else [KINDS[name].words for name in told]
    return ", ".join(words)
