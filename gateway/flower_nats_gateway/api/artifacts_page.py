"""The download that `flwr pull` prints a link to.

The token in the link is the only proof. So the link is valid for a quarter of an hour, and only
while its account may see the run: a superlink is asked each time.
"""

from flower_nats.broker.rpc import RpcClient
from flower_nats.model.account import account_token_hash
from flower_nats.model.addresses import reachable
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, Unavailable
from flower_nats.settings import GatewaySettings
from flower_nats.wire import control_pb2 as control
from flower_nats.wire.methods import ARTIFACTS_PATH
from flower_nats_gateway.api import login_html as html
from flower_nats_gateway.api.page import Attachment, Page, PageRequest
from flower_nats_gateway.api.service import Endpoint
from flower_nats_gateway.auth.accounts import REFUSED
from flower_nats_gateway.calls.answers import Answer
from flower_nats_gateway.calls.call import Call

_PATIENCE = 120.0
"""Seconds for a superlink to pack the results of a run, perhaps after other downloads."""

_LONGEST_TOKEN = 200
"""Characters of a token; ours have fewer."""


class ArtifactsPage:
    """Serves the download; superlinks know the links."""

    def __init__(self, rpc: RpcClient, settings: GatewaySettings) -> None:
        self._rpc = rpc
        self._settings = settings

    def with_address(self, forward: Endpoint) -> Endpoint:
        """Wrap PullArtifacts, so that its answer has the whole link."""

        async def serve(call: Call, caller: Caller) -> Answer:
            answer = await forward(call, caller)
            assert isinstance(answer, bytes)
            pulled = control.PullArtifactsResponse.FromString(answer)
            pulled.url = f"{self._base_url(call)}{ARTIFACTS_PATH}{pulled.url}"
            return pulled.SerializeToString()

        return serve

    def _base_url(self, call: Call) -> str:
        """Return the URL at which browsers reach this gateway, if it is known."""
        if self._settings.login_url:
            return self._settings.login_url
        scheme = "http" if self._settings.tls is None else "https"
        return f"{scheme}://{call.text('host') or self._own_address()}"

    def _own_address(self) -> str:
        """Return our own address: over gRPC, clients do not send the address that they used."""
        return reachable(self._settings.control_api_address or self._settings.http_api_address)

    async def __call__(self, request: PageRequest) -> Page:
        """Answer a browser, or another program that opens links."""
        token = request.query.get("token", "")[:_LONGEST_TOKEN]
        try:
            answer = await self._rpc.ask(
                "Download",
                patience=_PATIENCE,
                token_hash=account_token_hash(token),
                address=request.address,
            )
        except Unavailable:
            text = "The runtime cannot answer at the moment. Try this link again soon."
            return Page(503, html.message("Not just now", text))
        except ApiError as exc:
            text = exc.public_details or exc.spec.message
            status = 404 if exc.code is REFUSED else exc.spec.http_status
            return Page(status, html.message("There is no such download", text))
        return Page(200, "", attachment=Attachment(answer["name"], answer["content"]))
