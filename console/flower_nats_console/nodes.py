"""The pages of nodes."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats_console import queries
from flower_nats_console.pages import data, page
from flower_nats_console.superlinks import Superlinks
from flower_nats_console.viewer import viewer

_NOT_THERE = "There is no such node here, or you may not see it."


class NodePages:
    """Serves them."""

    def __init__(self, superlinks: Superlinks) -> None:
        self._superlinks = superlinks

    def routes(self) -> list[Route]:
        """Return where its pages are."""
        get = ["GET"]
        return [
            Route("/nodes", self.listed, methods=get),
            Route("/nodes.json", self.listed, methods=get),
            Route("/nodes/{node_id:str}.json", self.shown, methods=get),
            Route("/nodes/{node_id:str}", self.shown, methods=get),
        ]

    async def listed(self, request: Request) -> Response:
        """Show the SuperNodes."""
        found = await self._superlinks.ask("Nodes", viewer(request))
        if queries.wants_json(request):
            return data(found)
        return page(request, "nodes", "Nodes", found=found)

    async def shown(self, request: Request) -> Response:
        """Show one node."""
        node_id = _node_id(request)
        try:
            found = await self._superlinks.ask("Node", viewer(request), node_id=node_id)
        except ApiError as exc:
            if exc.code is not ErrorCode.INVALID_NODE_ID:
                raise
            raise HTTPException(404, _NOT_THERE) from exc
        if queries.wants_json(request):
            return data(found)
        name = found["node"]["name"] or f"Node {node_id}"
        return page(request, "node", name, found=found, node=found["node"])


def _node_id(request: Request) -> int:
    node_id = queries.number_or_none(str(request.path_params["node_id"]))
    if node_id is None:
        raise HTTPException(404, _NOT_THERE)
    return node_id
