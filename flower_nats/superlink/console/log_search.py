"""A search for words in the logs of all runs, and the part of a log around a line.

Logs are only in JetStream. They are read, newest run first, until there is enough to show or the
time is over. The answer says where to go on. There is no index that could differ from the logs.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flower_nats.broker.connection import Record
from flower_nats.broker.runlog import RunLogs
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.run import Run
from flower_nats.model.visible import visible_lines, visible_name
from flower_nats.store.connection import Database
from flower_nats.store.runs import Runs, RunSearch
from flower_nats.superlink.accounts.guard import Guard
from flower_nats.superlink.accounts.identity import Identity
from flower_nats.superlink.codecs import InternalHandler
from flower_nats.superlink.console.known import for_known
from flower_nats.superlink.convert import iso
from flower_nats.wire import control_pb2 as control

Map = Mapping[str, Any]

_BUDGET = 2.0
"""Seconds that one answer may take. The console shows the lines so far, and asks for more."""

_MOST_HITS = 100
"""Lines in one answer."""

_RUNS = 50
"""Runs that are read from the database at a time."""

_PIECE = 4 * 1024 * 1024
"""Bytes of a log that are read at a time."""

_LONGEST_LINE = 400
"""Characters of a line that are shown."""

_BEFORE, _AFTER = 100, 200
"""Lines that are shown before and after a line."""

_NEAR = 1024 * 1024
"""Bytes that are read for these lines, on each side."""

_POSITIONS_BEFORE = (1, 10, 100, 500)
"""Distances, in positions, at which the read of earlier lines starts, until there are enough lines.
All logs share positions, and a record may have one line or thousands."""

_LONGEST_UNFINISHED = 64 * 1024
"""Bytes of a line in several records. A longer line is searched in parts."""

_COLOURS = re.compile(rb"\x1b\[[0-9;:]*m")


class LogSearch:
    """Serves the page that looks for words."""

    def __init__(self, database: Database, logs: RunLogs, identity: Identity, guard: Guard) -> None:
        self._identity = identity
        self._guard = guard
        self._logs = logs
        self._runs = Runs(database)
        # Reading logs takes much of a core. Other calls must not wait for many searches at once.
        self._turn = asyncio.Semaphore(1)

    def handlers(self) -> Mapping[str, InternalHandler]:
        """Return the handler of each internal RPC served here."""
        return for_known(self._identity, {"SearchLogs": self.search, "LogAround": self.around})

    async def search(self, question: Map, caller: Caller) -> Map:
        """{text, federation, skip, run_id, after, line} -> {hits, looked, next, federations}.

        It finds lines with `text`, in any case of letters. `next` says where to go on: {skip,
        run_id, after, line}, None if everything was searched. `looked` is {runs, lines}, for this
        answer alone.
        """
        federations = await self._runs.federations(caller.sees)
        wanted = str(question["text"]).strip().lower()
        found = _Found(wanted, int(question["skip"]), question["run_id"])
        found.after, found.line = int(question["after"]), int(question["line"])
        if wanted:
            async with self._turn:
                await self._search(found, question["federation"] or None, caller)
        return {
            "hits": found.hits,
            "looked": {"runs": found.runs, "lines": found.lines},
            "next": found.goes_on if wanted else None,
            "federations": federations,
        }

    async def _search(self, found: "_Found", federation: str | None, caller: Caller) -> None:
        sought = RunSearch(federation=federation, seen_by=caller.sees)
        while True:
            runs = _from(await self._runs.search(sought, _RUNS, found.skip), found.run_id)
            if not runs:
                found.goes_on = None
                return
            for run in runs:
                if not await self._search_run(found, run):
                    return
                found.next_run()

    async def _search_run(self, found: "_Found", run: Run) -> bool:
        """Search a run's log; return whether the search has reached its end."""
        while True:
            if found.is_enough:
                found.goes_on = {
                    "skip": found.skip,
                    "run_id": str(run.run_id),
                    "after": found.after,
                    "line": found.line,
                }
                return False
            records = await self._logs.records(run.run_id, found.after, _PIECE)
            found.has_looked = True
            if records:
                await asyncio.to_thread(found.look, run, records)
            elif found.look_at_end(run):
                return True

    async def around(self, question: Map, caller: Caller) -> Map:
        """{run_id, position, line} -> {app, before, line, after}: a line with the lines around it.

        Raises `ApiError` (RUN_ID_NOT_FOUND), also if there is no such line.
        """
        run_id, position = int(question["run_id"]), int(question["position"])
        number = int(question["line"])
        await self._guard.check("ListRuns", control.ListRunsRequest(run_id=run_id), caller)
        run = await self._runs.get(run_id)
        records = await self._logs.records(run_id, position - 1, _NEAR) if position > 0 else []
        is_there = bool(records) and records[0].sequence == position
        if run is None or not is_there or number > records[0].data.count(b"\n"):
            raise ApiError(ErrorCode.RUN_ID_NOT_FOUND, f"run {run_id} has no line {number}")
        earlier = await self._earlier(run_id, position)
        text = b"".join([*earlier, *(one.data for one in records)])
        lines = _text(text).removesuffix("\n").split("\n")
        at = sum(one.count(b"\n") for one in earlier) + number
        if at >= len(lines):
            raise ApiError(ErrorCode.RUN_ID_NOT_FOUND, f"run {run_id} has no line {number}")
        return {
            "app": visible_name(run.fab_id),
            "before": [_shown(line) for line in lines[max(0, at - _BEFORE) : at]],
            "line": _shown(lines[at]),
            "after": [_shown(line) for line in lines[at + 1 : at + 1 + _AFTER]],
        }

    async def _earlier(self, run_id: int, position: int) -> list[bytes]:
        """Return enough text before a position for the lines to show."""
        earlier: list[bytes] = []
        for back in _POSITIONS_BEFORE:
            near = await self._logs.records(run_id, max(0, position - 1 - back), _NEAR)
            if not near or near[-1].sequence < position:
                # The text is too long, and would leave a gap before the line.
                break
            earlier = [one.data for one in near if one.sequence < position]
            if sum(one.count(b"\n") for one in earlier) > _BEFORE:
                break
        return earlier


@dataclass(frozen=True)
class _Unfinished:
    """The beginning of a line that ends in a later record."""

    position: int
    """Position of the record in which the line begins."""
    line: int
    """Number of the line in that record."""
    data: bytes = b""


class _Found:
    """The state of a search."""

    def __init__(self, wanted: str, skip: int, run_id: str) -> None:
        self._contains = _contains(wanted)
        self._wanted = wanted
        self._until = time.monotonic() + _BUDGET
        self._unfinished: _Unfinished | None = None
        self.skip = skip
        """Runs that were searched, from the newest on."""
        self.run_id = run_id
        """The run to go on with; empty for the next in order."""
        self.after = 0
        """The position of the last record that was searched to its end."""
        self.line = 0
        """The line of the next record to go on with."""
        self.hits: list[Map] = []
        self.runs = 0
        self.lines = 0
        self.has_looked = False
        """Whether anything was read for this answer, however slow the servers are."""
        self.goes_on: Map | None = None

    @property
    def is_enough(self) -> bool:
        """Whether this answer is long, or has taken long and made some progress.

        It is never complete in the middle of a line: the next search begins with a whole line.
        """
        is_late = self.has_looked and time.monotonic() > self._until
        return self._unfinished is None and (is_late or len(self.hits) >= _MOST_HITS)

    def next_run(self) -> None:
        """Go on with the next run."""
        self.skip += 1
        self.run_id, self.after, self.line = "", 0, 0
        self.runs += 1

    def look(self, run: Run, records: Sequence[Record]) -> None:
        """Search some records of a run's log, until there are enough lines."""
        for record in records:
            begun = self._unfinished or _Unfinished(record.sequence, 0)
            whole, end, rest = (begun.data + record.data).rpartition(b"\n")
            if end and not self._take(run, record.sequence, begun, whole):
                return
            lines = record.data.count(b"\n")
            self.lines += lines
            self.after, self.line = record.sequence, 0
            if end:
                begun = _Unfinished(record.sequence, lines)
            self._unfinished = replace(begun, data=rest) if rest else None
            if len(rest) > _LONGEST_UNFINISHED and not self.look_at_end(run):
                return

    def look_at_end(self, run: Run) -> bool:
        """Search the last line, which has no end; return whether the search may go on."""
        begun, self._unfinished = self._unfinished, None
        return begun is None or self._take(run, begun.position, begun, begun.data)

    def _take(self, run: Run, position: int, begun: _Unfinished, data: bytes) -> bool:
        """Collect matching lines; return False if there are too many.

        The first line begins at `begun`, the others in the record at `position`.
        """
        if not self._contains(data):
            return True
        first = begun.line if begun.position == position else 0
        for number, line in enumerate(_text(data).split("\n"), first):
            at = line.lower().find(self._wanted)
            place = (begun.position, begun.line) if number == first else (position, number)
            if at < 0 or (place[0] == self.after + 1 and place[1] < self.line):
                continue
            if len(self.hits) >= _MOST_HITS:
                self.after, self.line = place[0] - 1, place[1]
                self._unfinished = None
                return False
            self.hits.append(
                {
                    "run_id": str(run.run_id),
                    "app": visible_name(run.fab_id),
                    "began_at": iso(run.pending_at),
                    "position": place[0],
                    "line": place[1],
                    "text": _shown(line, at),
                }
            )
        return True


def _from(runs: Sequence[Run], run_id: str) -> Sequence[Run]:
    """Return the runs from one on, because newer runs may have shifted its place."""
    places = [at for at, run in enumerate(runs) if str(run.run_id) == run_id]
    return runs[places[0] :] if places else runs


def _contains(wanted: str) -> Callable[[bytes], bool]:
    """Return a quick check whether lines contain a text, in any case of letters."""
    if not wanted.isascii():
        return lambda data: wanted in _text(data).lower()
    sought = wanted.encode()
    return lambda data: sought in _without_colours(data).lower()


def _without_colours(data: bytes) -> bytes:
    return _COLOURS.sub(b"", data) if b"\x1b" in data else data


def _text(data: bytes) -> str:
    return _without_colours(data).decode("utf-8", "replace")


def _shown(line: str, at: int = 0) -> str:
    """Return a line for display; of a very long line, the part around a place."""
    begin = max(0, at - _LONGEST_LINE // 2) if len(line) > _LONGEST_LINE else 0
    cut = line[begin : begin + _LONGEST_LINE]
    dots = ("…" if begin else "", "…" if begin + _LONGEST_LINE < len(line) else "")
    return visible_lines(f"{dots[0]}{cut}{dots[1]}").replace("\r", "")
