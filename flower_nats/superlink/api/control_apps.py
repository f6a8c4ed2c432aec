"""The Control API about apps, which were run in the federation. None comes from Flower Hub."""

import re
from collections.abc import Mapping

from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.run import MOST_LISTED
from flower_nats.store.apps import Apps
from flower_nats.store.connection import Database
from flower_nats.superlink.codecs import ProtoHandler
from flower_nats.superlink.convert import app_to_wire
from flower_nats.wire import control_pb2 as control

_APP_SPEC = re.compile(r"(?P<app_id>@[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+)(==\d+\.\d+\.\d+)?")


class AppsApi:
    """Serves `flwr chat`, which offers the agents of a federation."""

    def __init__(self, database: Database) -> None:
        self._apps = Apps(database)

    def handlers(self) -> Mapping[str, ProtoHandler]:
        """Return the handler of each RPC served here."""
        return {
            "ListApps": self.list_apps,
            "ListAppAssociations": self.list_app_associations,
            "AddApp": self.add_app,
            "RemoveApp": self.remove_app,
        }

    async def list_apps(
        self, request: control.ListAppsRequest, caller: Caller
    ) -> control.ListAppsResponse:
        """Return the apps of the federation, newest first."""
        limit = min(request.limit, MOST_LISTED) if request.HasField("limit") else MOST_LISTED
        apps = await self._apps.of(request.federation_id, limit)
        return control.ListAppsResponse(apps=[app_to_wire(app) for app in apps])

    async def list_app_associations(
        self, request: control.ListAppAssociationsRequest, caller: Caller
    ) -> control.ListAppAssociationsResponse:
        """Return the caller's federations that have an app."""
        return control.ListAppAssociationsResponse(
            federation_ids=await self._apps.federations(request.app_id, caller.sees)
        )

    async def add_app(
        self, request: control.AddAppRequest, caller: Caller
    ) -> control.AddAppResponse:
        """Refuse to fetch an app from Flower Hub."""
        app_id_of(request.app_id)
        raise ApiError(ErrorCode.UNSUPPORTED_FAB_HUB_TRANSPORT, request.app_id)

    async def remove_app(
        self, request: control.RemoveAppRequest, caller: Caller
    ) -> control.RemoveAppResponse:
        """Take an app out of the federation."""
        await self._apps.remove(request.federation_id, request.app_id)
        return control.RemoveAppResponse()


def app_id_of(app_spec: str) -> str:
    """Return the app that `@account/app` or `@account/app==1.2.3` means; raises `ApiError`."""
    found = _APP_SPEC.fullmatch(app_spec)
    if found is None:
        text = "Write an app as '@account/app' or '@account/app==x.y.z'."
        raise ApiError(ErrorCode.INVALID_APP_SPEC, f"{app_spec[:80]!r} is no app", text)
    return found["app_id"]
