"""The settings of each process of the runtime.

Each process has one typed, frozen object. The command line fills it (flag, then environment
variable, then configuration file, then default: see `flower_nats_cli.main`). Nothing else reads the
environment. Secrets never show in a `repr`, so a settings object may be logged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

DEFAULT_DATABASE_CONNECTIONS = 10
"""Connections of one superlink: a statement takes milliseconds, so ten serve thousands of nodes."""

DEFAULT_LOG_RETENTION = 90
"""Days for which the log of a run is kept."""

DEFAULT_RUN_RETENTION = 0
"""Days for which finished runs are kept: for ever. A run is deleted with its model, and only its
owners can decide that.
"""

DEFAULT_NODE_RETENTION = 30
"""Days for which lists show a node that is offline."""

DEFAULT_AUDIT_RETENTION = 730
"""Days for which events of the audit trail are kept: two years."""

DEFAULT_MAX_ARTIFACTS = 256
"""MiB of a run that `flwr pull` gives at most. Superlink and gateway hold all of it for a while."""

DEFAULT_CALLS_PER_ADDRESS = 4_096
"""Open calls that one address may have: a thousand SuperNodes behind one NAT, each with four."""

DEFAULT_CONNECTIONS_PER_ADDRESS = 2_048
"""Connections that one address may have: a thousand SuperNodes behind one NAT, each with two."""


@dataclass(frozen=True)
class StorageLimits:
    """MiB that may be stored at once, 0 for any number. Each limit applies at each gateway."""

    reply: int = 4 * 1024
    """Of one reply: metadata and objects."""

    node: int = 8 * 1024
    """Of all replies of one SuperNode that its ServerApps have not confirmed."""

    run: int = 256 * 1024
    """Of all messages and replies in flight of one run."""


class Isolation(StrEnum):
    """Which process starts ServerApps."""

    SUBPROCESS = "subprocess"
    """A stock `flower-superexec` beside the superlink, which starts and ends with it."""

    PROCESS = "process"
    """A `flower-superexec` that the operator runs anywhere."""


@dataclass(frozen=True)
class TlsFiles:
    """PEM files with which a server proves who it is."""

    certificate: Path
    """The server's certificate (chain)."""

    key: Path
    """The private key of `certificate`."""

    ca_certificate: Path
    """The certificate authority's certificate, which clients verify `certificate` with."""


@dataclass(frozen=True)
class LogSettings:
    """Which log lines are written, and where."""

    level: str = "info"
    """The lowest level that is written: debug, info, warning or error."""

    file: Path | None = None
    """A file for JSON lines beside the terminal, if set; rotated by time."""

    rotation_interval_hours: int = 24
    """Hours after which `file` is rotated."""

    rotation_backup_count: int = 7
    """Rotated files that are kept beside `file`."""


@dataclass(frozen=True)
class SuperexecSettings:
    """Settings of a stock `flower-superexec` that runs ServerApps on this host."""

    runtime_api_address: str
    """`host:port` where this host reaches a gateway's Runtime API: over HTTP for flwr 1.35 and
    newer, over gRPC for older versions."""

    ca_certificate: Path | None = None
    """CA certificate (PEM) to verify the gateway, None for no TLS."""

    auth_secret_file: Path | None = None
    """File with the shared secret that SuperExecs must prove, None for no secret."""

    runtime_dependency_installation: bool = True
    """Whether it may install the dependencies of an app before it starts the app."""

    environment: tuple[str, ...] = ()
    """Names or patterns of variables that it and apps get besides those that apps usually need."""

    user: str | None = None
    """The user of this machine who runs it and the apps; None for the user of this process."""

    max_simulations: int | None = None
    """Simulations that it runs at a time; None for the number that the cores of this host allow."""


@dataclass(frozen=True)
class OidcSettings:
    """The OIDC issuer that identifies people."""

    url: str
    """The issuer's own URL, such as `https://login.example.org/realms/hospital`."""

    client_id: str
    """The id of this runtime as a client of the issuer."""

    client_secret_file: Path | None = None
    """File with the client's secret, read again for each request; None for a public client."""

    scopes: str = "openid profile email offline_access"
    """The requested scopes. Without `offline_access`, most issuers give no refresh token, and a
    login lasts 8 hours."""

    audience: str = ""
    """The required audience of ID tokens; empty for `client_id`."""

    name_claim: str = "preferred_username"
    """The claim with the name for an account."""

    groups_claim: str = "groups"
    """The claim that lists a person's groups; `a.b` for claim `b` in claim `a`."""

    operator_group: str = ""
    """The group whose members are operators; empty to set roles by `flower-nats account role`."""

    ca_certificate: Path | None = None
    """CA certificate (PEM) to verify the issuer; None for the system's authorities."""


@dataclass(frozen=True)
class SuperlinkSettings:
    """Settings of one superlink worker."""

    nats: tuple[str, ...] = field(repr=False)
    """URLs of the NATS servers of one cluster. Hidden: a URL may carry a token."""

    database: str = field(repr=False)
    """Connection string of PostgreSQL (`postgresql://…`). Hidden: it may carry a password."""

    nats_ca_certificate: Path | None = None
    """CA certificate (PEM) to verify NATS servers with `tls://` URLs; None for the system's
    authorities."""

    superexec: SuperexecSettings | None = None
    """The SuperExec that runs beside this worker, None in `process` isolation."""

    enable_supernode_auth: bool = False
    """Whether only SuperNodes with a key that was registered over the Control API are let in. A
    call is refused if this is set at its gateway or at its superlink."""

    accounts: bool = False
    """Whether the Control API asks who is calling: by accounts, with `flwr login`."""

    oidc: OidcSettings | None = None
    """The OIDC issuer; None if accounts have passwords of this runtime. Only with `accounts`."""

    supernode_self_registration: bool = False
    """Whether, with accounts, SuperNodes that no account has registered are let in."""

    simulation: bool = False
    """Whether runs in the default federation are simulations."""

    log_retention: int = DEFAULT_LOG_RETENTION
    """Days for which the log of a run is kept after its end; 0 for ever."""

    run_retention: int = DEFAULT_RUN_RETENTION
    """Days for which a run is kept after its end, with its app and context; 0 for ever."""

    node_retention: int = DEFAULT_NODE_RETENTION
    """Days offline after which lists leave out a node; 0 for never."""

    audit_retention: int = DEFAULT_AUDIT_RETENTION
    """Days for which events of the audit trail are kept; 0 for ever."""

    max_artifacts: int = DEFAULT_MAX_ARTIFACTS
    """MiB of a run that `flwr pull` gives at most; 0 for nothing."""

    database_connections: int = DEFAULT_DATABASE_CONNECTIONS
    """The largest number of connections to PostgreSQL."""

    watch_disk: Path | None = None
    """A directory on the disk whose free room is reported in status, metrics and log; None for no
    report."""

    health_server_address: str | None = None
    """`host:port` of a gRPC health server without TLS, None for none."""

    http_health_address: str | None = None
    """`host:port` of an HTTP server that answers `/livez`, `/readyz` and `/metrics`, None for none."""

    drain_delay: float = 0.0
    """Seconds between becoming unready and ending calls, so that balancers notice."""

    log: LogSettings = LogSettings()
    """Where log lines go."""

    @property
    def only_registered_supernodes(self) -> bool:
        """Whether only SuperNodes with a key that an account has registered are let in."""
        by_accounts = self.accounts and not self.supernode_self_registration
        return self.enable_supernode_auth or by_accounts


@dataclass(frozen=True)
class ConsoleSettings:
    """Settings of one console."""

    nats: tuple[str, ...] = field(repr=False)
    """URLs of the NATS servers of one cluster. Hidden: a URL may carry a token."""

    nats_ca_certificate: Path | None = None
    """CA certificate (PEM) to verify NATS servers with `tls://` URLs; None for the system's
    authorities."""

    address: str = "127.0.0.1:9090"
    """`host:port` of its pages."""

    certificate: Path | None = None
    """PEM file of its TLS certificate; None for no TLS. Pages are served under the names in the
    certificate and those of the loopback interface."""

    key: Path | None = None
    """PEM file of the private key of `certificate`."""

    only_accounts: bool = False
    """Whether to refuse a runtime without accounts, because other machines reach this console."""

    log: LogSettings = LogSettings()
    """Where log lines go."""


@dataclass(frozen=True)
class GatewaySettings:
    """Settings of one gateway."""

    nats: tuple[str, ...] = field(repr=False)
    """URLs of the NATS servers of one cluster. Hidden: a URL may carry a token."""

    nats_ca_certificate: Path | None = None
    """CA certificate (PEM) to verify NATS servers with `tls://` URLs; None for the system's
    authorities."""

    http_api_address: str = "0.0.0.0:8000"
    """`host:port` of all three APIs over HTTP (flwr 1.35 and newer); empty for none. Connections to
    an address that is not on the loopback interface get Fleet; the two settings below open the
    other APIs."""

    control_to_others: bool = False
    """Whether the HTTP port also serves Control to other machines."""

    runtime_to_others: bool = False
    """Whether the HTTP port also serves the Runtime API to other machines."""

    serverappio_api_address: str = "127.0.0.1:9091"
    """`host:port` of the Runtime API over gRPC (flwr 1.30 to 1.34); empty for none."""

    fleet_api_address: str = "0.0.0.0:9092"
    """`host:port` of the Fleet API over gRPC (flwr 1.30 to 1.39); empty for none."""

    control_api_address: str = "127.0.0.1:9093"
    """`host:port` of the Control API, over gRPC and HTTP; empty for none."""

    http_loopback_address: str = ""
    """A further `host:port` of the HTTP APIs, on this machine alone and without TLS, for a
    SuperExec beside the gateway if the certificate has other names. Empty for none."""

    require_accounts: bool = False
    """Whether only superlinks with accounts may serve Control."""

    login_url: str = ""
    """`https://host:port` where browsers reach Control, for the login page; empty for no such
    page."""

    tls: TlsFiles | None = None
    """TLS of the HTTP port, and of the Fleet and Control APIs over gRPC; None for no TLS."""

    appio_tls: TlsFiles | None = None
    """TLS of the ServerAppIo API, None for no TLS."""

    superexec_auth_secret_file: Path | None = None
    """File with one or two shared secrets that a SuperExec must prove; None for no secret."""

    enable_supernode_auth: bool = False
    """Whether only SuperNodes with a key that was registered over the Control API are let in. A
    call is refused if this is set at its gateway or at its superlink."""

    record_metrics: bool = False
    """Whether the numbers of MetricRecords in replies are recorded for the console."""

    max_calls_per_address: int = DEFAULT_CALLS_PER_ADDRESS
    """Open calls that one address may have, 0 for any number. Loopback has no such limit. Behind a
    trusted balancer, the limit applies to each client's address."""

    max_connections_per_address: int = DEFAULT_CONNECTIONS_PER_ADDRESS
    """Connections that one address may have, 0 for any number. Loopback and trusted balancers have
    no such limit."""

    trusted_balancers: tuple[str, ...] = ()
    """Addresses, networks and names of trusted balancers, which send the client's address in a
    header."""

    control_by_balancer: tuple[str, ...] = ()
    """Each `host:port` of a balancer that forwards Control to this gateway."""

    balancer_certificates: tuple[Path, ...] = ()
    """Certificates that a balancer shows in place of this gateway's; their end is reported."""

    storage_limits: StorageLimits = StorageLimits()
    """Storage limits of replies, nodes and runs."""

    health_server_address: str | None = None
    """`host:port` of a gRPC health server without TLS, None for none."""

    http_health_address: str | None = None
    """`host:port` of an HTTP server that answers `/livez`, `/readyz` and `/metrics`, None for none."""

    drain_delay: float = 0.0
    """Seconds between becoming unready and ending calls, so that balancers notice."""

    log: LogSettings = LogSettings()
    """Where log lines go."""
