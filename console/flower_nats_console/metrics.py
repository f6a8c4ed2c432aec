"""The page of the numbers in the replies of a run, and their export."""

import csv
import io
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from flower_nats.model.caller import Caller
from flower_nats_console import queries
from flower_nats_console.pages import data, page
from flower_nats_console.superlinks import Answer, Superlinks
from flower_nats_console.viewer import viewer

_NODES = 50
"""Nodes whose lines are drawn: more cannot be told apart."""

_ROUNDS = 1_000
"""Rounds that are drawn, the newest ones: a plot has not many more points across."""

_LISTED = 200
"""Rounds in the table; the plot and the exports have the others."""

_LONGEST_TEXT = 500

_COLUMNS = ("round", "type", "node_id", "node_name", "answered_at", "metric", "value")

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What spreadsheets take for the beginning of a formula."""


class MetricPages:
    """Serves them."""

    def __init__(self, superlinks: Superlinks) -> None:
        self._superlinks = superlinks

    def routes(self) -> list[Route]:
        """Return where its pages are."""
        get = ["GET"]
        return [
            Route("/runs/{run_id:str}/metrics", self.shown, methods=get),
            Route("/runs/{run_id:str}/metrics/plot.json", self.plot, methods=get),
            Route("/runs/{run_id:str}/metrics.csv", self.as_csv, methods=get),
            Route("/runs/{run_id:str}/metrics.json", self.as_json, methods=get),
        ]

    async def shown(self, request: Request) -> Response:
        """Show one number over the rounds of a run."""
        found = await self._found(request)
        title = f"Metrics of run {found['run']['run_id']}"
        return page(request, "metrics", title, found=found, run=found["run"], listed=_LISTED)

    async def plot(self, request: Request) -> Response:
        """Return what the plot shows."""
        return data(await self._found(request))

    async def _found(self, request: Request) -> Answer:
        message_type, _, name = queries.as_written(request, "metric", _LONGEST_TEXT).partition("/")
        return await self._superlinks.ask(
            "Metrics",
            viewer(request),
            run_id=queries.run_id_of(request),
            message_type=message_type,
            name=name,
            columns=_ROUNDS,
            rows=_NODES,
        )

    async def as_csv(self, request: Request) -> Response:
        """Export all numbers of a run as a table."""
        return await self._export(request, "csv", "text/csv; charset=utf-8", _csv)

    async def as_json(self, request: Request) -> Response:
        """Export all numbers of a run as a list."""
        return await self._export(request, "json", "application/json", _json)

    async def _export(self, request: Request, ending: str, media_type: str, write: Any) -> Response:
        run_id, asking = queries.run_id_of(request), viewer(request)
        # That somebody may not see it is said before anything is sent.
        first = await self._superlinks.ask("MetricRows", asking, run_id=run_id, after=None)
        name = f'attachment; filename="metrics-{run_id}.{ending}"'
        return StreamingResponse(
            write(self._rows(run_id, first, asking)),
            media_type=media_type,
            headers={"content-disposition": name},
        )

    async def _rows(
        self, run_id: int, first: Answer, asking: Caller
    ) -> AsyncIterator[Mapping[str, Any]]:
        answer = first
        while True:
            for row in answer["rows"]:
                yield row
            if answer["next"] is None:
                return
            answer = await self._superlinks.ask(
                "MetricRows", asking, run_id=run_id, after=answer["next"]
            )


async def _csv(rows: AsyncIterator[Mapping[str, Any]]) -> AsyncIterator[str]:
    yield _line(_COLUMNS)
    async for row in rows:
        about = [row["round"], row["type"], row["node_id"], row["name"], row["answered_at"]]
        for name, value in row["metrics"].items():
            number = "" if value is None else repr(value)
            yield _line([*map(_cell, about), _cell(name), number])


def _line(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()


def _cell(text: str) -> str:
    """Return a text that a spreadsheet takes for text: names come from nodes and apps."""
    return f"'{text}" if text.startswith(_FORMULA) else text


async def _json(rows: AsyncIterator[Mapping[str, Any]]) -> AsyncIterator[str]:
    comma = "[\n"
    async for row in rows:
        named = {key: value for key, value in row.items() if key not in ("name", "node_status")}
        yield comma + json.dumps({**named, "node_name": row["name"]}, ensure_ascii=False)
        comma = ",\n"
    yield "[]\n" if comma == "[\n" else "\n]\n"
