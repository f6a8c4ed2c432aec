"""The console's questions about events."""

from collections.abc import Mapping
from typing import Any

from flower_nats.model.caller import Caller
from flower_nats.model.event import Event, kinds_of
from flower_nats.model.visible import visible_lines, visible_name
from flower_nats.store.connection import Database
from flower_nats.store.federations import Federations
from flower_nats.store.runtime_events import RuntimeEvents
from flower_nats.superlink.accounts.identity import Identity
from flower_nats.superlink.codecs import InternalHandler
from flower_nats.superlink.console.known import for_known
from flower_nats.superlink.convert import iso, now_iso

Map = Mapping[str, Any]

_MOST = 200
"""Events in one answer."""


class EventQuestions:
    """Serves the page of events."""

    def __init__(self, database: Database, identity: Identity) -> None:
        self._identity = identity
        self._events = RuntimeEvents(database)
        self._federations = Federations(database)

    def handlers(self) -> Mapping[str, InternalHandler]:
        """Return the handler of each internal RPC served here."""
        return for_known(self._identity, {"Events": self.events})

    async def events(self, question: Map, caller: Caller) -> Map:
        """{kinds, federation, limit, skip} -> {now, events, more, federations}: newest first.

        `kinds` are names of kinds or groups; none: all.
        """
        limit = min(int(question["limit"]), _MOST)
        found = await self._events.newest(
            limit + 1,
            int(question["skip"]),
            kinds=kinds_of(question["kinds"]) if question["kinds"] else None,
            federation=question["federation"] or None,
            seen_by=caller.sees,
        )
        federations = await self._federations.of(caller.sees)
        return {
            "now": now_iso(),
            "events": [described(one) for one in found[:limit]],
            "more": len(found) > limit,
            "federations": [one.name for one in federations],
        }


def described(event: Event) -> dict[str, Any]:
    """Return an event as plain values, for pages."""
    return {
        "event_id": str(event.event_id),
        "at": iso(event.at),
        "kind": event.kind,
        "group": event.what.group,
        "tone": str(event.what.tone),
        "words": event.what.words,
        "text": visible_name(event.text),
        "name": visible_name(event.name),
        "details": visible_lines(event.details),
        "federation": event.federation or "",
        "run_id": "" if event.run_id is None else str(event.run_id),
        "node_id": "" if event.node_id is None else str(event.node_id),
    }
