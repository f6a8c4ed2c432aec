"""The numbers in replies, noted for the history if the operator has enabled it.

With this, the numbers are kept outside of the message: everyone who may see a run sees them, and
they stay as long as its log.
"""

from collections import Counter

from flower_nats.broker.exchange_notes import ExchangeNotes
from flower_nats.logs import get_logger
from flower_nats.wire.metric_records import numbers_of
from flower_nats_gateway.delivery.push_session import PushSession

log = get_logger(__name__)

_MOST_OF_RUN = 1_000_000
"""The most numbers of one run that a gateway notes, some 50 MB in the database."""

_MOST_RUNS = 1_000
"""Runs with counted numbers. For the oldest, counting begins anew."""


class ReplyMetrics:
    """Notes the numbers of MetricRecords that pass the gateway."""

    def __init__(self, notes: ExchangeNotes, *, recorded: bool) -> None:
        """Without `recorded`, no object is read."""
        self._notes = notes
        self._recorded = recorded
        self._counts: Counter[int] = Counter()

    def note(self, view: PushSession, content: memoryview) -> None:
        """Note the numbers of an object of a reply, if it is a MetricRecord."""
        if not self._recorded or view.brings_instructions:
            return
        found = numbers_of(content)
        count = self._counts[view.run_id]
        if not found or count >= _MOST_OF_RUN:
            return
        self._notes.metrics_of(view.run_id, view.answers, found)
        if view.run_id not in self._counts and len(self._counts) >= _MOST_RUNS:
            del self._counts[next(iter(self._counts))]
        self._counts[view.run_id] = count + len(found)
        if count + len(found) >= _MOST_OF_RUN:
            log.warning("metrics_no_more_recorded", run_id=view.run_id, recorded=count + len(found))
