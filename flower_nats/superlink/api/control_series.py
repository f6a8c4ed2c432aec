"""The Control API about series of runs, which `flwr chat` shows as conversations."""

from collections.abc import Mapping
from datetime import datetime

from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.run import DESCRIPTION_LENGTH, MOST_LISTED, Series
from flower_nats.store.connection import Database
from flower_nats.store.runs import Runs
from flower_nats.store.series import SeriesStore
from flower_nats.store.task_events import Events
from flower_nats.superlink.codecs import ProtoHandler
from flower_nats.superlink.convert import event_to_wire, run_to_wire, series_to_wire
from flower_nats.wire import control_pb2 as control


class SeriesApi:
    """Serves the CLI's commands about series."""

    def __init__(self, database: Database) -> None:
        self._series = SeriesStore(database)
        self._runs = Runs(database)
        self._events = Events(database)

    def handlers(self) -> Mapping[str, ProtoHandler]:
        """Return the handler of each RPC served here."""
        return {
            "ListRunSeries": self.list_run_series,
            "GetRunSeries": self.get_run_series,
            "UpdateRunSeriesDescription": self.update_description,
            "ListRunSeriesEvents": self.list_events,
        }

    async def list_run_series(
        self, request: control.ListRunSeriesRequest, caller: Caller
    ) -> control.ListRunSeriesResponse:
        """Return series of runs, last updated first."""
        found = await self._series.find(
            federation=request.federation_id if request.HasField("federation_id") else None,
            account_id=caller.sees,
            is_agent=request.is_agent if request.HasField("is_agent") else None,
            updated_before=_moment(request),
            limit=min(request.limit, MOST_LISTED) if request.HasField("limit") else MOST_LISTED,
        )
        return control.ListRunSeriesResponse(entries=[series_to_wire(series) for series in found])

    async def get_run_series(
        self, request: control.GetRunSeriesRequest, caller: Caller
    ) -> control.GetRunSeriesResponse:
        """Return a series with its runs and its present context."""
        series = await self._find(request.series_id)
        return control.GetRunSeriesResponse(
            series=series_to_wire(series),
            context=await self._series.context(series.series_id),
            runs=[run_to_wire(run) for run in await self._runs.of_series(series.series_id)],
        )

    async def update_description(
        self, request: control.UpdateRunSeriesDescriptionRequest, caller: Caller
    ) -> control.UpdateRunSeriesDescriptionResponse:
        """Set the description of a series."""
        await self._find(request.series_id)
        description = request.description.strip()
        if not 1 <= len(description) <= DESCRIPTION_LENGTH:
            text = f"The description must have from 1 to {DESCRIPTION_LENGTH} characters."
            raise ApiError(ErrorCode.INVALID_RUN_SERIES_DESCRIPTION, text, text)
        await self._series.describe(request.series_id, description)
        return control.UpdateRunSeriesDescriptionResponse(
            series=series_to_wire(await self._find(request.series_id))
        )

    async def list_events(
        self, request: control.ListRunSeriesEventsRequest, caller: Caller
    ) -> control.ListRunSeriesEventsResponse:
        """Return the events of the primary tasks of a series' runs."""
        series = await self._find(request.series_id)
        events = await self._events.of_series(series.series_id)
        return control.ListRunSeriesEventsResponse(events=map(event_to_wire, events))

    async def _find(self, series_id: int) -> Series:
        found = await self._series.find(series_id=series_id)
        if not found:
            raise ApiError(ErrorCode.RUN_SERIES_ID_NOT_FOUND, str(series_id))
        return found[0]


def _moment(request: control.ListRunSeriesRequest) -> datetime | None:
    if not request.HasField("updated_before"):
        return None
    try:
        moment = datetime.fromisoformat(request.updated_before)
        # The database would take a time without a zone in its own zone.
        if moment.tzinfo is None:
            raise ValueError("it has no time zone")
    except ValueError as exc:
        text = f"updated_before must be a moment in ISO 8601 with a time zone: {exc}"
        raise ApiError(ErrorCode.MALFORMED_REQUEST, text, text) from exc
    return moment
