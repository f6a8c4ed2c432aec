"""What a process of the runtime is told at its start.

One typed, frozen object per process. The command line fills it (flag, then environment variable,
then configuration file, then default: see `flower_nats_cli.main`); nothing else reads the
environment. Secrets never show in a `repr`, so a settings object may be logged as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

DEFAULT_DATABASE_CONNECTIONS = 10
"""Connections of one superlink: a statement takes milliseconds, so that ten serve thousands of nodes."""

DEFAULT_LOG_RETENTION = 90
"""Days for which the log of a run is kept."""

DEFAULT_RUN_RETENTION = 0
"""Days for which finished runs are kept: for ever. The model of a run is deleted with it, and its
people alone can say when that is worth nothing.
"""

DEFAULT_NODE_RETENTION = 30
"""Days for which lists show a node that is offline."""

DEFAULT_AUDIT_RETENTION = 730
"""Days for which events of the audit trail are kept: two years."""

DEFAULT_MAX_ARTIFACTS = 256
"""MiB that `flwr pull` gives of a run at most: superlink and gateway hold all of it for a while."""

DEFAULT_CALLS_PER_ADDRESS = 4_096
"""Calls that one address may have in hand: a thousand SuperNodes behind one NAT, each with four."""

DEFAULT_CONNECTIONS_PER_ADDRESS = 2_048
"""Connections that one address may have: a thousand SuperNodes behind one NAT, each with two."""


@dataclass(frozen=True)
class StorageLimits:
    """MiB that may be stored at once, 0 for any number; each holds at each gateway."""

    reply: int = 4 * 1024
    """Of one reply: metadata and objects."""

    node: int = 8 * 1024
    """Of all replies of one SuperNode that no ServerApp has confirmed."""

    run: int = 256 * 1024
    """Of all messages and replies of one run that are not over."""


class Isolation(StrEnum):
    """The process that starts ServerApps."""

    SUBPROCESS = "subprocess"
    """A stock `flower-superexec` beside the superlink, started and ended with it."""

    PROCESS = "process"
    """The operator, who runs `flower-superexec` wherever it belongs."""


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
    """Where log lines go and which of them."""

    level: str = "info"
    """The least severe level that is written: debug, info, warning or error."""

    file: Path | None = None
    """Written beside the terminal when set, as JSON lines; rotated by time."""

    rotation_interval_hours: int = 24
    """Hours after which `file` is rotated."""

    rotation_backup_count: int = 7
    """Rotated files that are kept beside `file`."""


@dataclass(frozen=True)
class SuperexecSettings:
    """Settings of a stock `flower-superexec` that runs ServerApps on this host."""

    runtime_api_address: str
    """`host:port` of a gateway's Runtime API, as this host reaches it: over HTTP for flwr 1.35 and
    newer, over gRPC for older ones."""

    ca_certificate: Path | None = None
    """CA certificate (PEM) that the gateway is verified with, None for no TLS."""

    auth_secret_file: Path | None = None
    """File with the shared secret that SuperExecs prove to know, None when they need not."""

    runtime_dependency_installation: bool = True
    """Whether it may install what an app depends on before it starts the app."""

    environment: tuple[str, ...] = ()
    """Names of variables, or patterns, that it and apps get beside those that apps usually need."""

    user: str | None = None
    """The user of this machine who runs it and the apps; None: the user of this process."""

    max_simulations: int | None = None
    """Simulations that it runs at a time, None for as many as the cores of this host allow."""


@dataclass(frozen=True)
class OidcSettings:
    """The OIDC issuer that says who people are."""

    url: str
    """What the issuer calls itself, such as `https://login.example.org/realms/hospital`."""

    client_id: str
    """What the issuer knows this runtime by."""

    client_secret_file: Path | None = None
    """File with the secret of that client, read anew for each question; None for a public client."""

    scopes: str = "openid profile email offline_access"
    """What is asked for. Without `offline_access` most issuers give no refresh token: a login then lasts
    for 8 hours."""

    audience: str = ""
    """Whom ID tokens must be for; empty for `client_id`."""

    name_claim: str = "preferred_username"
    """The claim that accounts are named by."""

    groups_claim: str = "groups"
    """The claim that lists a person's groups; `a.b` for claim `b` in claim `a`."""

    operator_group: str = ""
    """The group whose members are operators; empty to set roles by `flower-nats account role`."""

    ca_certificate: Path | None = None
    """CA certificate (PEM) that the issuer is verified with; None: the authorities that the system
    trusts."""


@dataclass(frozen=True)
class SuperlinkSettings:
    """Settings of one superlink worker."""

    nats: tuple[str, ...] = field(repr=False)
    """URLs of the NATS servers of one cluster. Hidden: a URL may carry a token."""

    database: str = field(repr=False)
    """Connection string of PostgreSQL (`postgresql://…`). Hidden: it may carry a password."""

    nats_ca_certificate: Path | None = None
    """CA certificate (PEM) that NATS servers with `tls://` URLs are verified with; None: the authorities
    that the system trusts."""

    superexec: SuperexecSettings | None = None
    """The SuperExec that runs beside this worker, None in `process` isolation."""

    enable_supernode_auth: bool = False
    """Whether only SuperNodes whose key was registered over the Control API are let in. Gateways and
    superlinks each refuse if they themselves, or the other of a call, are told so."""

    accounts: bool = False
    """Whether the Control API asks who is calling: by accounts, with `flwr login`."""

    oidc: OidcSettings | None = None
    """The OIDC issuer; None: accounts have passwords here. Only with `accounts`."""

    supernode_self_registration: bool = False
    """Whether, with accounts, SuperNodes are let in that no account has registered."""

    simulation: bool = False
    """Whether runs in the federation of everything that connects are simulations."""

    log_retention: int = DEFAULT_LOG_RETENTION
    """Days after its end for which the log of a run is kept; 0 for ever."""

    run_retention: int = DEFAULT_RUN_RETENTION
    """Days after its end for which a run is kept, with its app and context; 0 for ever."""

    node_retention: int = DEFAULT_NODE_RETENTION
    """Days after which lists leave out a node that was not online since; 0 for never."""

    audit_retention: int = DEFAULT_AUDIT_RETENTION
    """Days for which events of the audit trail are kept; 0 for ever."""

    max_artifacts: int = DEFAULT_MAX_ARTIFACTS
    """MiB that `flwr pull` gives of a run at most; 0 for nothing."""

    database_connections: int = DEFAULT_DATABASE_CONNECTIONS
    """Connections to PostgreSQL that it opens at most."""

    watch_disk: Path | None = None
    """A directory on the disk whose room is told in status, metrics and log; None for none."""

    health_server_address: str | None = None
    """`host:port` of a gRPC health server without TLS, None for none."""

    http_health_address: str | None = None
    """`host:port` of an HTTP server that answers `/livez`, `/readyz` and `/metrics`, None for none."""

    drain_delay: float = 0.0
    """Seconds from being unready to ending calls, for balancers to notice."""

    log: LogSettings = LogSettings()
    """Where log lines go."""

    @property
    def only_registered_supernodes(self) -> bool:
        """Whether only SuperNodes are let in whose key an account has registered."""
        by_accounts = self.accounts and not self.supernode_self_registration
        return self.enable_supernode_auth or by_accounts


@dataclass(frozen=True)
class ConsoleSettings:
    """Settings of one console."""

    nats: tuple[str, ...] = field(repr=False)
    """URLs of the NATS servers of one cluster. Hidden: a URL may carry a token."""

    nats_ca_certificate: Path | None = None
    """CA certificate (PEM) that NATS servers with `tls://` URLs are verified with; None: the authorities
    that the system trusts."""

    address: str = "127.0.0.1:9090"
    """`host:port` that its pages are served on."""

    certificate: Path | None = None
    """PEM file of the certificate that it proves itself with; None: it speaks no TLS. Pages are shown
    under the names in it, and those of the loopback interface."""

    key: Path | None = None
    """PEM file of the private key of `certificate`."""

    only_accounts: bool = False
    """Whether a runtime without accounts is shown to nobody: others reach this console."""

    log: LogSettings = LogSettings()
    """Where log lines go."""


@dataclass(frozen=True)
class GatewaySettings:
    """Settings of one gateway."""

    nats: tuple[str, ...] = field(repr=False)
    """URLs of the NATS servers of one cluster. Hidden: a URL may carry a token."""

    nats_ca_certificate: Path | None = None
    """CA certificate (PEM) that NATS servers with `tls://` URLs are verified with; None: the authorities
    that the system trusts."""

    http_api_address: str = "0.0.0.0:8000"
    """`host:port` that all three APIs listen on over HTTP (flwr 1.35 and newer); empty: not at all.
    Connections to an address that is not of the loopback interface get Fleet, and the others as the two
    settings below say."""

    control_to_others: bool = False
    """Whether the HTTP port serves Control to other machines, too."""

    runtime_to_others: bool = False
    """Whether the HTTP port serves the Runtime API to other machines, too."""

    serverappio_api_address: str = "127.0.0.1:9091"
    """`host:port` that the Runtime API listens on over gRPC (flwr 1.30 to 1.34); empty: not at all."""

    fleet_api_address: str = "0.0.0.0:9092"
    """`host:port` that the Fleet API listens on over gRPC (flwr 1.30 to 1.39); empty: not at all."""

    control_api_address: str = "127.0.0.1:9093"
    """`host:port` that the Control API listens on, over gRPC and HTTP; empty: not at all."""

    http_loopback_address: str = ""
    """`host:port` of this machine alone that the HTTP APIs listen on once more, without TLS: for a
    SuperExec beside the gateway where the certificate is for other names. Empty: not at all."""

    require_accounts: bool = False
    """Whether Control is served by superlinks alone that have accounts."""

    login_url: str = ""
    """`https://host:port` at which people's browsers reach Control, for the page where they log in;
    empty for no such page."""

    tls: TlsFiles | None = None
    """TLS of the HTTP port, and of the Fleet and the Control API over gRPC. None: in the clear."""

    appio_tls: TlsFiles | None = None
    """TLS of the ServerAppIo API, None to serve it in the clear."""

    superexec_auth_secret_file: Path | None = None
    """File with the shared secret, or two, that a SuperExec must prove to know; None: it need not."""

    enable_supernode_auth: bool = False
    """Whether only SuperNodes whose key was registered over the Control API are let in. Gateways and
    superlinks each refuse if they themselves, or the other of a call, are told so."""

    record_metrics: bool = False
    """Whether the numbers of MetricRecords in replies are recorded for the console."""

    max_calls_per_address: int = DEFAULT_CALLS_PER_ADDRESS
    """Calls that one address may have in hand, 0 for any number. Loopback has no such limit. Of clients
    that come by a balancer that is trusted, each address has it."""

    max_connections_per_address: int = DEFAULT_CONNECTIONS_PER_ADDRESS
    """Connections that one address may have, 0 for any number. Loopback and balancers that are trusted
    have no such limit."""

    trusted_balancers: tuple[str, ...] = ()
    """Addresses, networks and names of balancers, which say in a header whose call they pass on."""

    control_by_balancer: tuple[str, ...] = ()
    """Each `host:port` of a balancer that passes Control on to this gateway."""

    balancer_certificates: tuple[Path, ...] = ()
    """Certificates that a balancer shows in the place of this gateway: when they end is told."""

    storage_limits: StorageLimits = StorageLimits()
    """What replies, nodes and runs may have stored."""

    health_server_address: str | None = None
    """`host:port` of a gRPC health server without TLS, None for none."""

    http_health_address: str | None = None
    """`host:port` of an HTTP server that answers `/livez`, `/readyz` and `/metrics`, None for none."""

    drain_delay: float = 0.0
    """Seconds from being unready to ending calls, for balancers to notice."""

    log: LogSettings = LogSettings()
    """Where log lines go."""
