"""`flower-nats audit`: who did what in a runtime, and whether the trail is complete."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from flower_nats.logs import configure_logs
from flower_nats.model.audit import AuditEvent, chain_hash
from flower_nats.model.errors import ApiError
from flower_nats.model.visible import visible_name
from flower_nats.settings import LogSettings
from flower_nats_cli import options as opts
from flower_nats_cli.runtime_client import RuntimeClient, runtime_client
from flower_nats_cli.table import Table
from flower_nats_cli.which_runtime import Servers, servers_given, servers_of

_PATIENCE_SECONDS = 10.0
"""Seconds for a superlink to answer."""

_ALL: dict[str, Any] = {
    "account": None,
    "action": None,
    "object": None,
    "outcome": None,
    "since": None,
}

_HEAD = ("TIME (UTC)", "ACCOUNT", "ADDRESS", "ACTION", "OBJECT", "OUTCOME")

_EVENT_FIELDS = tuple(AuditEvent.__dataclass_fields__)


@click.command()
@click.option("--account", metavar="NAME", help="Only events of this account.")
@click.option("--action", metavar="CALL", help="Only events of this call, such as StartRun.")
@click.option(
    "--object", metavar="TEXT", help="Only events about this object, such as 'run 5' or @ana/lab."
)
@click.option(
    "--outcome",
    metavar="OUTCOME",
    help="Only events with this outcome: done, or a refusal such as NO_PERMISSIONS.",
)
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="Only events from this day or moment on, in this machine's time zone.",
)
@click.option(
    "--json",
    is_flag=True,
    help="Print one JSON object per line, with the hash of each event.",
)
@click.option(
    "--verify",
    is_flag=True,
    help="Check that no event was changed or removed. Prints no events.",
)
@opts.data_dir_option
@opts.status_nats_options
@click.pass_context
def audit(context: click.Context, /, **options: Any) -> None:
    """Show who did what: logins, refusals, and every change of runs, nodes, federations and accounts."""
    servers = servers_given(context, options) or servers_of(options)
    configure_logs(LogSettings(level="error"))
    since: datetime | None = options["since"]
    wanted = {name: options[name] for name in _ALL}
    try:
        wanted["since"] = None if since is None else since.astimezone().isoformat()
    except (ValueError, OverflowError) as exc:
        raise click.BadParameter(
            f"{since} is outside of what this machine's time zone can express. Remedy: give a year "
            "from 1970 on, or leave the option out.",
            context,
            param_hint="--since",
        ) from exc
    try:
        if options["verify"]:
            click.echo(asyncio.run(_verify(servers)))
        else:
            asyncio.run(_print(servers, wanted, as_json=options["json"]))
    except ApiError as exc:
        raise click.ClickException(exc.detail) from exc


async def _print(servers: Servers, wanted: Mapping[str, Any], *, as_json: bool) -> None:
    async with runtime_client(*servers) as client:
        if not as_json:
            await _print_table(client, wanted)
            return
        async for event in _events(client, wanted):
            click.echo(json.dumps(event))


async def _print_table(client: RuntimeClient, wanted: Mapping[str, Any]) -> None:
    """Print events as a table with one head. Its columns get wider where they have to."""
    lines = Table(_HEAD)
    async for events in _pages(client, wanted):
        for line in lines.more([_row(event) for event in events]):
            click.echo(line)


def _row(event: Mapping[str, Any]) -> tuple[str, ...]:
    cells = (
        f"{event['at'][:10]} {event['at'][11:19]}",
        event["account_name"] or "-",
        event["address"] or "-",
        event["action"],
        event["object"] or "-",
        event["outcome"],
    )
    return tuple(visible_name(cell) for cell in cells)


async def _verify(servers: Servers) -> str:
    """Go through the whole chain; raises `click.ClickException` at the first event that is not right."""
    async with runtime_client(*servers) as client:
        chain = await client.ask("AuditChain", _PATIENCE_SECONDS)
        count, last_id = 0, chain["forgotten_id"]
        last = bytes.fromhex(chain["forgotten_hash"])
        async for event in _events(client, _ALL, last_id):
            event_id = event["event_id"]
            if event_id > chain["last_id"]:
                break
            if event_id != last_id + 1:
                raise _broken(f"Event {last_id + 1} is missing: after {last_id} comes {event_id}")
            moment = datetime.fromisoformat(event["at"])
            last = chain_hash(last, event_id, moment, _event(event))
            if last.hex() != event["hash"]:
                raise _broken(f"Event {event_id} or an earlier one was changed")
            last_id, count = event_id, count + 1
        if (last_id, last.hex()) != (chain["last_id"], chain["last_hash"]):
            raise _broken(f"Events {last_id + 1} to {chain['last_id']} are missing at the end")
    return f"{count} events, complete and unchanged. The last is {last_id}, with hash {last.hex()}."


def _broken(what: str) -> click.ClickException:
    return click.ClickException(
        f"{what}. The logs of the superlinks also have each event (`audit`), with its hash."
    )


def _event(written: Mapping[str, Any]) -> AuditEvent:
    return AuditEvent(**{name: written[name] for name in _EVENT_FIELDS})


async def _events(
    client: RuntimeClient, wanted: Mapping[str, Any], after: int = 0
) -> AsyncIterator[Mapping[str, Any]]:
    async for page in _pages(client, wanted, after):
        for event in page:
            yield event


async def _pages(
    client: RuntimeClient, wanted: Mapping[str, Any], after: int = 0
) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
    while True:
        answer = await client.ask("AuditEvents", _PATIENCE_SECONDS, **wanted, after=after)
        if not answer["events"]:
            return
        yield answer["events"]
        after = answer["events"][-1]["event_id"]
