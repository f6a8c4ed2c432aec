"""A whole runtime on one machine: what it consists of, how it comes up and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from flower_nats.broker.permissions import User
from flower_nats.embedded.balancer import Balancer, find_envoy
from flower_nats.embedded.postgres_server import PostgresServer, without_postgres_settings
from flower_nats.embedded.process import OwnedProcess, ProcessFailedError, ProcessSpec
from flower_nats.logs import get_logger
from flower_nats.model.errors import ApiError, Unavailable
from flower_nats.model.exposure import exposure, warnings
from flower_nats.settings import (
    DEFAULT_AUDIT_RETENTION,
    DEFAULT_DATABASE_CONNECTIONS,
    DEFAULT_LOG_RETENTION,
    DEFAULT_MAX_ARTIFACTS,
    DEFAULT_NODE_RETENTION,
    DEFAULT_RUN_RETENTION,
    GatewaySettings,
    OidcSettings,
    SuperexecSettings,
    SuperlinkSettings,
)
from flower_nats_cli.addresses import accepts_connections, claim_addresses, reachable
from flower_nats_cli.broker_care import BrokerCare
from flower_nats_cli.datadir import DataDir, RunningState
from flower_nats_cli.environment import flower_home, without_ours
from flower_nats_cli.exposure import for_others
from flower_nats_cli.flower import SUPEREXEC, find_program
from flower_nats_cli.flower_version import NEWEST, FlowerVersion
from flower_nats_cli.in_process import InProcess
from flower_nats_cli.nats_servers import Broker
from flower_nats_cli.placement import API_ADDRESSES, edges, gateway_flags, oidc_flags
from flower_nats_cli.runtime_access import flwr_access, runtime_access, with_login_page
from flower_nats_cli.runtime_client import runtime_client
from flower_nats_cli.superexec_host import SuperexecService
from flower_nats_cli.supervisor import Service, Supervisor

_READY_SECONDS = 120.0
_POLL_SECONDS = 0.05

# Seconds that each group has for an orderly end: 9.5 in all, of the 10 that `up` promises.
# ServerApps end with their SuperExec and tell a gateway, so gateways end later.
_SUPEREXEC_GRACE = 2.5
_BALANCER_GRACE = 1.0
_GATEWAY_GRACE = 2.5
_SUPERLINK_GRACE = 2.0
_SERVER_GRACE = 1.5

_END_RUNS_SECONDS = 0.5
"""Seconds to tell runs of the end. A healthy runtime needs much less."""

_ENDED = "The runtime was shut down while the run was under way."

_MOST_CONNECTIONS = 200
"""Connections of all superlinks together. Each is a PostgreSQL process of some MB."""

_OTHER_CONNECTIONS = 20

_ONE_PERSONS_CONNECTIONS = 4
"""Connections of a superlink that shares one process with everything else and serves one person."""

DATABASE_URL = "database.url"
"""Name of the secret with the connection string of superlinks, which backups use as well."""

log = get_logger(__name__)


@dataclass(frozen=True)
class StackSettings:
    """Settings of a runtime on one machine."""

    data: DataDir
    """Where everything is kept."""

    gateway: GatewaySettings
    """The addresses of the APIs, and the settings of every gateway; `nats` is not used."""

    superexec: SuperexecSettings | None
    """The SuperExec for ServerApps, None in `process` isolation."""

    flower: FlowerVersion | None = None
    """The version of flwr that is installed here, None without one. With a `superexec`, its
    version."""

    superexec_auth_secret_file: Path | None = None
    """File from which gateways read the secret of SuperExecs. Without one, `superexec` gets a
    secret of this runtime."""

    replicas: int = 1
    """How many superlinks, and how many gateways, are started."""

    one_process: bool = False
    """Whether superlink and gateway run in this process, not in their own. Only with one
    replica."""

    accounts: bool = False
    """Whether Control asks who is calling."""

    supernode_self_registration: bool = False
    """Whether, with accounts, SuperNodes that no account has registered are let in."""

    oidc: OidcSettings | None = None
    """The OIDC issuer; None if accounts have passwords of this runtime."""

    simulation: bool = False
    """Whether runs that name no federation are simulations."""

    log_retention: int = DEFAULT_LOG_RETENTION
    """Days for which the log of a run is kept after its end; 0 for ever."""

    run_retention: int = DEFAULT_RUN_RETENTION
    """Days for which a run is kept after its end; 0 for ever."""

    max_artifacts: int = DEFAULT_MAX_ARTIFACTS
    """MiB of a run that `flwr pull` gives at most."""

    node_retention: int = DEFAULT_NODE_RETENTION
    """Days offline after which lists leave out a node; 0 for never."""

    audit_retention: int = DEFAULT_AUDIT_RETENTION
    """Days for which events of the audit trail are kept; 0 for ever."""

    http_health_addresses: Mapping[str, str] = field(default_factory=dict)
    """`host:port` of the HTTP health server of each superlink and gateway, by its name."""

    console_address: str = ""
    """`host:port` of this machine alone where the console is served; empty without a console."""


class Stack:
    """A runtime: NATS, PostgreSQL, superlinks, gateways, a balancer and a SuperExec.

    The data directory must be owned. Call `stop` even if `start` fails with a FlowerNatsError.
    """

    def __init__(self, settings: StackSettings, **environment: str) -> None:
        find_programs(settings)
        self.settings = _with_own_secret(_with_claimed_addresses(settings))
        self.supervisor = Supervisor()
        self._environment = environment
        data = settings.data
        self._broker = Broker(data, settings.replicas)
        self._edges = edges(self.settings.gateway, settings.replicas)
        self._postgres = PostgresServer(
            data.postgres, data.log_of("postgres"), database_size(settings.replicas).server
        )
        self._superexecs = self._hosted_superexecs()

    async def start(self) -> RunningState:
        """Start everything, wait until it serves and publish its state."""
        data, start = self.settings.data, self.supervisor.start
        began = datetime.now(UTC).isoformat()
        data.withdraw()
        await data.end_leftovers()
        await start([*self._broker.servers, self._postgres], _SERVER_GRACE)
        await self._broker.until_formed()
        database = await self._postgres.dsn_for_superlinks(self.settings.audit_retention)
        # For `flower-nats backup`.
        self._nats_file(User.BACKUP)
        database_file = data.keep_secret(DATABASE_URL, database)
        await start(self._superlinks(database, database_file), _SUPERLINK_GRACE)
        await start(self._gateways(), _GATEWAY_GRACE)
        if self._edges.log_relay is not None:
            await self._edges.log_relay.start()
        await start(self._balancers(), _BALANCER_GRACE)
        await start(self._superexecs, _SUPEREXEC_GRACE)
        await self._until_ready(began)
        for superexec in self._superexecs:
            await superexec.begun()
        # The console comes last, after all that can fail. The runtime does not need it.
        await self.supervisor.start_beside(self._consoles())
        self.supervisor.watch()
        care = BrokerCare(self._broker.servers, data.path)
        self.supervisor.accompany("broker care", care.run())
        state = self._state()
        data.publish(state)
        return state

    async def stop(self) -> None:
        """End everything in order, within 10 seconds."""
        self.settings.data.withdraw()
        if self.settings.superexec is not None:
            await self._end_runs()
        await self.supervisor.stop()
        if self._edges.log_relay is not None:
            await self._edges.log_relay.stop()

    async def _end_runs(self) -> None:
        """Fail the runs whose ServerApps end with us, for this reason, not for lost heartbeats."""
        with suppress(ApiError):
            async with runtime_client(self._broker.urls_of(User.OPERATOR)) as client:
                await client.ask("EndRuns", _END_RUNS_SECONDS, reason=_ENDED)

    def _superlinks(self, database: str, database_file: str) -> Sequence[Service]:
        if self.settings.one_process:
            return [InProcess("superlink-1", partial(self._serve_superlink, database))]
        secrets = {
            "FLOWER_NATS_SUPERLINK_NATS_FILE": self._nats_file(User.SUPERLINK),
            "FLOWER_NATS_SUPERLINK_DATABASE_FILE": database_file,
        }
        # Each superlink runs in process isolation, because the supervisor starts the only
        # SuperExec.
        flags = ["--isolation", "process", "--log-retention", str(self.settings.log_retention)]
        if self.settings.accounts:
            flags += ["--accounts"]
        if self.settings.supernode_self_registration:
            flags += ["--supernode-self-registration"]
        if self.settings.oidc:
            flags += oidc_flags(self.settings.oidc)
        flags += ["--run-retention", str(self.settings.run_retention)]
        flags += ["--max-artifact-mib", str(self.settings.max_artifacts)]
        flags += ["--node-retention", str(self.settings.node_retention)]
        flags += ["--audit-retention", str(self.settings.audit_retention)]
        if self.settings.simulation:
            flags += ["--simulation"]
        flags += ["--watch-disk", str(self.settings.data.path)]
        pool = database_size(self.settings.replicas).superlink
        flags += ["--database-connections", str(pool)]
        if self.settings.gateway.enable_supernode_auth:
            flags += ["--enable-supernode-auth"]
        # No balancer checks their health, so there is no delay.
        health = {name: [*flag, "--drain-delay", "0"] for name, flag in self._health_flags.items()}
        return [
            self._replica(name, [*flags, *health.get(name, [])], secrets)
            for name in names("superlink", self.settings.replicas)
        ]

    async def _serve_superlink(self, database: str, stop: asyncio.Event) -> None:
        from flower_nats.superlink.worker import serve

        settings = SuperlinkSettings(
            nats=self._broker.urls_of(User.SUPERLINK),
            database=database,
            database_connections=_ONE_PERSONS_CONNECTIONS,
            watch_disk=self.settings.data.path,
            accounts=self.settings.accounts,
            oidc=self.settings.oidc,
            supernode_self_registration=self.settings.supernode_self_registration,
            simulation=self.settings.simulation,
            log_retention=self.settings.log_retention,
            run_retention=self.settings.run_retention,
            max_artifacts=self.settings.max_artifacts,
            node_retention=self.settings.node_retention,
            audit_retention=self.settings.audit_retention,
        )
        await serve(settings, stop)

    def _gateways(self) -> Sequence[Service]:
        if self.settings.one_process:
            return [InProcess("gateway-1", self._serve_gateway)]
        secrets = {"FLOWER_NATS_GATEWAY_NATS_FILE": self._nats_file(User.GATEWAY)}
        secret_file = self.settings.superexec_auth_secret_file
        more = ["--superexec-auth-secret-file", str(secret_file)] if secret_file else []
        balanced = bool(self._edges.balanced)
        gateways = zip(names("gateway", self.settings.replicas), self._edges.gateways, strict=True)
        health = self._health_flags
        return [
            self._replica(
                name,
                [*gateway_flags(one, balanced=balanced), *more, *health.get(name, [])],
                secrets,
            )
            for name, one in gateways
        ]

    async def _serve_gateway(self, stop: asyncio.Event) -> None:
        from flower_nats_gateway.process.gateway import serve

        settings = replace(
            self.settings.gateway,
            nats=self._broker.urls_of(User.GATEWAY),
            superexec_auth_secret_file=self.settings.superexec_auth_secret_file,
        )
        await serve(settings, stop)

    def _nats_file(self, user: User) -> str:
        urls = ",".join(self._broker.urls_of(user))
        return self.settings.data.keep_secret(nats_file_of(user), urls)

    @property
    def _health_flags(self) -> dict[str, list[str]]:
        addresses = self.settings.http_health_addresses
        return {name: ["--http-health-address", address] for name, address in addresses.items()}

    def _balancers(self) -> list[Balancer]:
        data, apis = self.settings.data, self._edges.balanced
        return [Balancer(data.balancer, apis, data.log_of("balancer"))] if apis else []

    def _consoles(self) -> Sequence[Service]:
        address = self.settings.console_address
        if not address:
            return []
        secrets = {"FLOWER_NATS_CONSOLE_NATS_FILE": self._nats_file(User.CONSOLE)}
        return [self._replica("console-1", ["--address", address], secrets)]

    def _hosted_superexecs(self) -> list[SuperexecService]:
        settings, data = self.settings.superexec, self.settings.data
        if settings is None:
            return []
        log_file, pid_file = data.log_of("superexec"), data.pid_file_of("superexec")
        # Another user has its own home, and no access to the data directory.
        home = flower_home(data) if settings.user is None else {}
        return [
            SuperexecService(
                settings,
                data.path,
                lambda: self._broker.urls_of(User.SUPERLINK),
                log_file=log_file,
                pid_file=pid_file,
                environment={**home, **self._environment},
            )
        ]

    def _replica(self, name: str, flags: Sequence[str], secrets: Mapping[str, str]) -> OwnedProcess:
        command, data = name.partition("-")[0], self.settings.data
        level = ["--log-level", self.settings.gateway.log.level]
        return OwnedProcess(
            ProcessSpec(
                name=name,
                # -P: Python must not import a folder called nats or click from the current
                # directory.
                command=[
                    *(sys.executable, "-P", "-m", "flower_nats_cli.main"),
                    *(command, *flags, *level),
                ],
                environment={**without_postgres_settings(without_ours()), **secrets},
                log=data.log_of(name),
                pid_file=data.pid_file_of(name),
                # NATS and PostgreSQL end with us too, so a farewell would reach nobody.
                orphan_signal=signal.SIGKILL,
            )
        )

    async def _until_ready(self, began: str) -> None:
        """Wait until the three APIs take connections and all replicas report that they serve.

        A process that ends before that has wrong settings or a broken installation. The error is
        raised at once, and the process is not restarted.
        """
        deadline = time.monotonic() + _READY_SECONDS
        async with runtime_client(self._broker.urls_of(User.OPERATOR)) as client:
            while time.monotonic() < deadline:
                self.supervisor.check()
                if self._accept_connections():
                    with suppress(Unavailable):
                        if self._all_serve(await client.ask("Status", 1.0), began):
                            return
                await asyncio.sleep(_POLL_SECONDS)
        logs = self.settings.data.log_of("*").parent
        raise ProcessFailedError(f"Not ready within {_READY_SECONDS:.0f} s; see {logs}.")

    def _all_serve(self, report: Mapping[str, Any], began: str) -> bool:
        """Whether all replicas that were started have been heard since `began` (ISO 8601)."""
        there = report.get("replicas", ())
        kinds = Counter(replica["kind"] for replica in there if replica["since"] >= began)
        return all(kinds[kind] >= self.settings.replicas for kind in ("superlink", "gateway"))

    def _accept_connections(self) -> bool:
        listeners = [self.settings.gateway, *self._edges.gateways]
        return all(
            accepts_connections(address)
            for one in listeners
            for name in API_ADDRESSES
            if (address := getattr(one, name))
        )

    def _connection(self) -> list[str]:
        version = self.settings.flower or NEWEST
        address, ca_certificate = flwr_access(self.settings.gateway, version)
        return [address, str(ca_certificate or "")]

    def _state(self) -> RunningState:
        gateway = self.settings.gateway
        return RunningState(
            pid=os.getpid(),
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            nats=self._broker.urls_of(User.OPERATOR),
            **{
                name: reachable(address) if (address := getattr(gateway, name)) else ""
                for name in API_ADDRESSES
            },
            http_health_addresses={
                name: reachable(address)
                for name, address in self.settings.http_health_addresses.items()
            },
            for_others=for_others(gateway, self.settings.http_health_addresses),
            console_address=self.settings.console_address,
            warnings=list(
                warnings(
                    exposure(gateway),
                    accounts=self.settings.accounts,
                    only_registered=self.settings.accounts
                    and not self.settings.supernode_self_registration,
                )
            ),
            connection=self._connection(),
        )


def nats_file_of(user: User) -> str:
    """Return the name of the secret with a NATS user's URLs."""
    return f"nats.{user}.urls"


class DatabaseSize(NamedTuple):
    """How many connections there may be."""

    superlink: int
    """Connections of one superlink."""

    server: int
    """Connections that the server allows."""


def database_size(replicas: int) -> DatabaseSize:
    """Return the size that lets all superlinks have their connections at once.

    A superlink that was restarted may count twice for a moment. People and tools need some too.
    """
    superlink = min(DEFAULT_DATABASE_CONNECTIONS, _MOST_CONNECTIONS // (replicas + 1))
    return DatabaseSize(superlink, superlink * (replicas + 1) + _OTHER_CONNECTIONS)


def names(command: str, replicas: int) -> list[str]:
    """Return the names of the processes that run a command."""
    return [f"{command}-{number}" for number in range(1, replicas + 1)]


def find_programs(settings: StackSettings) -> None:
    """Raise FlowerNatsError if a program is needed that is not installed."""
    if settings.replicas > 1:
        find_envoy()
    if settings.superexec is not None:
        find_program(SUPEREXEC)


_OPTIONS = {
    **{name: f"--{name.replace('_', '-')}" for name in (*API_ADDRESSES, "health_server_address")},
    "http_api_address": "--port or --http-api-address",
}
"""The options of `up` that set an address of a gateway."""


def _with_claimed_addresses(settings: StackSettings) -> StackSettings:
    """Settle on addresses before anything starts; raises AddressInUseError."""
    gateway, health = settings.gateway, settings.http_health_addresses
    console = [settings.console_address] if settings.console_address else []
    names = (*API_ADDRESSES, "http_loopback_address", "health_server_address")
    used = [name for name in names if getattr(gateway, name)]
    claimed = claim_addresses(
        [
            *((_OPTIONS.get(name, ""), getattr(gateway, name)) for name in used),
            *(("--http-health-address", page) for page in health.values()),
            *(("--console-address", one) for one in console),
        ]
    )
    own: dict[str, Any] = dict(zip(used, claimed, strict=False))
    pages = dict(zip(health, claimed[len(used) :], strict=False))
    gateway = with_login_page(replace(gateway, **own))
    superexec = settings.superexec
    if superexec is not None and settings.flower is not None:
        address, _ = runtime_access(gateway, settings.flower)
        superexec = replace(superexec, runtime_api_address=address)
    return replace(
        settings,
        gateway=gateway,
        superexec=superexec,
        http_health_addresses=pages,
        console_address=claimed[-1] if console else "",
    )


def _with_own_secret(settings: StackSettings) -> StackSettings:
    """Let gateways give tasks only to our own SuperExec, not to everyone at the HTTP port."""
    if settings.superexec is None or settings.superexec_auth_secret_file is not None:
        return settings
    file = settings.data.superexec_secret()
    superexec = replace(settings.superexec, auth_secret_file=file)
    return replace(settings, superexec=superexec, superexec_auth_secret_file=file)
