"""Options that several commands share; `given` makes settings of them.

Where stock `flower-superlink` (flwr 1.30 to 1.42) has an option for the same thing, ours has its name
and meaning. Options also have environment variables: FLOWER_NATS_<COMMAND>_<OPTION>.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from flower_nats.broker.urls import check_url
from flower_nats.model.addresses import check_host
from flower_nats.model.visible import is_utf8
from flower_nats.settings import (
    DEFAULT_AUDIT_RETENTION,
    DEFAULT_CALLS_PER_ADDRESS,
    DEFAULT_CONNECTIONS_PER_ADDRESS,
    DEFAULT_LOG_RETENTION,
    DEFAULT_MAX_ARTIFACTS,
    DEFAULT_NODE_RETENTION,
    DEFAULT_RUN_RETENTION,
    Isolation,
    OidcSettings,
    StorageLimits,
)
from flower_nats_cli.addresses import address_argument, api_address_argument
from flower_nats_cli.environment import PREFIX

Command = TypeVar("Command", bound=Callable[..., Any])

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def nats_urls(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the URLs in the value of --nats; raises BadParameter."""
    # Click also converts a default that is already a tuple.
    urls = value if isinstance(value, tuple) else tuple(url.strip() for url in value.split(","))
    for number, url in enumerate(urls, 1):
        try:
            check_url(url)
        except ValueError as exc:
            # The message leaves the URL out: it may hold a password.
            raise click.BadParameter(
                f"URL {number} of {len(urls)} is not one such as nats://HOST:PORT: {exc}."
            ) from exc
    return urls


def _words(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of a list, with commas between them."""
    # Click also converts a default that is already a tuple.
    return value if isinstance(value, tuple) else tuple(value.replace(",", " ").split())


def _addresses(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the addresses of a list; raises BadParameter."""
    return tuple(address_argument(word) for word in _words(value))


def _host(value: str) -> str:
    """Return the name or number of a host; raises BadParameter."""
    try:
        check_host(value)
    except ValueError as exc:
        raise click.BadParameter(f"{value!r} is no host: {exc}.") from exc
    return value


def _balancers(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the addresses, networks and names of balancers; raises BadParameter."""
    words = _words(value)
    for word in words:
        try:
            ip_network(word, strict=False)
        except ValueError as exc:
            problem = f"{word!r} is no address, no network such as 10.0.5.0/24, and no name"
            if "/" in word or ":" in word:
                raise click.BadParameter(f"{problem}.") from exc
            try:
                check_host(word)
            except ValueError as no_name:
                raise click.BadParameter(f"{problem}: {no_name}.") from no_name
    return words


def _together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class _OfOperators(click.Option):
    """An option of all operator commands: one variable sets it for all of them."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return the value of the command's own variable, else that of the common one."""
        own = super().resolve_envvar_value(ctx)
        return own or os.environ.get(f"{PREFIX}_OPERATOR_{str(self.name).upper()}")


def _nats_file_options(kind: type[click.Option]) -> Callable[[Command], Command]:
    return _together(
        click.option(
            "--nats-file",
            cls=kind,
            type=FILE,
            help="File with the value of --nats: for URLs that contain a password.",
        ),
        click.option(
            "--nats-ca-certfile",
            cls=kind,
            type=FILE,
            help="CA certificate to verify NATS servers with, for tls:// URLs. Default: the "
            "authorities that this system trusts.",
        ),
    )


nats_options = _together(
    click.option(
        "--nats",
        type=nats_urls,
        metavar="URL[,URL...]",
        help="URLs of the servers of one NATS cluster, with nats:// or, for TLS, tls://. A URL may hold "
        "a user and a password; --nats-file or an environment variable keeps them out of the process "
        "list.",
    ),
    _nats_file_options(click.Option),
)

status_nats_options = _together(
    click.option(
        "--nats",
        cls=_OfOperators,
        type=nats_urls,
        metavar="URL[,URL...]",
        help=(
            "Use the runtime on these NATS servers instead of that of a data directory. A URL "
            "may contain a user and a password; --nats-file or an environment variable keeps "
            "them out of the process list. All commands with this option read "
            "FLOWER_NATS_OPERATOR_NATS."
        ),
    ),
    _nats_file_options(_OfOperators),
)


def database_url(value: str) -> str:
    """Return the value of --database if it is valid; raises BadParameter."""
    from flower_nats.store.dsn import check_dsn

    try:
        check_dsn(value)
    except ValueError as exc:
        # The message leaves the string out: it may hold a password.
        raise click.BadParameter(
            f"It is not one such as postgresql://USER:PASSWORD@HOST/DATABASE: {exc}. Special "
            "characters of a password are written as %XX."
        ) from exc
    return value


database_options = _together(
    click.option(
        "--database",
        type=database_url,
        metavar="URL",
        help="PostgreSQL, as postgresql://USER:PASSWORD@HOST/DATABASE; "
        "--database-file or an environment variable keeps the password out of the process list.",
    ),
    click.option(
        "--database-file",
        type=FILE,
        help="File with the value of --database.",
    ),
)


class _Directory(click.Path):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path. An empty text would be the current directory."""
        if value == "":
            self.fail("The path is empty. Is it a variable that is not set?", param, ctx)
        if not is_utf8(os.path.abspath(value)):
            self.fail(
                "The path is not UTF-8 text. Remedy: choose another, or rename the directory.",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


data_dir_option = click.option(
    "--data-dir",
    type=_Directory(file_okay=False, path_type=Path),
    default=Path(".flower-nats"),
    show_default=True,
    help="Directory for all data of this runtime: streams, database, logs, passwords.",
)

format_option = click.option(
    "--format",
    type=click.Choice(["default", "json"]),
    default="default",
    show_default=True,
    help="Output for people or for programs.",
)


def _api_address_option(flag: str, text: str) -> Callable[[Command], Command]:
    return click.option(flag, type=api_address_argument, metavar="HOST:PORT|none", help=text)


api_address_options = _together(
    _api_address_option(
        "--http-api-address",
        "Address of all three APIs over HTTP: for SuperExecs of flwr 1.35 and newer, the flwr "
        "command of 1.37 and newer, SuperNodes of 1.40 and newer. Other machines reach only the "
        "API of SuperNodes there, unless other options open more. Default: port 8000.",
    ),
    # No variables: Kubernetes sets FLOWER_NATS_GATEWAY_PORT for a service of that name.
    click.option(
        "--host",
        type=_host,
        allow_from_autoenv=False,
        help="Another way to say the host of --http-api-address.",
    ),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        allow_from_autoenv=False,
        help="Another way to say the port of --http-api-address.",
    ),
    _api_address_option(
        "--serverappio-api-address",
        "Address of the ServerAppIo API over gRPC: for SuperExecs of flwr 1.30 to 1.34. Default: "
        "port 9091, of this machine alone unless callers need a secret and TLS.",
    ),
    _api_address_option(
        "--fleet-api-address",
        "Address of the Fleet API over gRPC: for SuperNodes of flwr 1.30 to 1.39. Default: "
        "port 9092.",
    ),
    _api_address_option(
        "--control-api-address",
        "Address of the Control API, over gRPC and HTTP: for the flwr command of all versions. "
        "Anyone who reaches it can run code on every host. Default: port 9093 of this machine "
        "only.",
    ),
    click.option(
        "--http-control",
        is_flag=True,
        help=(
            "Serve Control on the HTTP port to other machines too. Anyone who reaches it can "
            "run code on every host."
        ),
    ),
    click.option(
        "--insecure-appio",
        is_flag=True,
        help="Serve SuperExecs and ServerApps of other machines without TLS, or without a secret that "
        "SuperExecs share. Anyone who reaches that port can then take runs.",
    ),
)

insecure_option = click.option(
    "--insecure",
    is_flag=True,
    help="Serve without TLS, even if certificates are given. Data is not encrypted.",
)

tls_terminated_option = click.option(
    "--tls-terminated",
    is_flag=True,
    help="Serve without TLS, behind a balancer that terminates TLS.",
)

tls_options = _together(
    insecure_option,
    click.option(
        "--ssl-certfile",
        type=FILE,
        help="Certificate of the HTTP port, and of Fleet and Control. It is read again, with its key, "
        "when it has changed.",
    ),
    click.option("--ssl-keyfile", type=FILE, help="Private key of that certificate."),
    click.option("--ssl-ca-certfile", type=FILE, help="CA certificate to verify it with."),
    click.option("--appio-ssl-certfile", type=FILE, help="Certificate of the ServerAppIo API."),
    click.option("--appio-ssl-keyfile", type=FILE, help="Private key of that certificate."),
    click.option("--appio-ssl-ca-certfile", type=FILE, help="CA certificate to verify it with."),
)

isolation_option = click.option(
    "--isolation",
    type=click.Choice([str(choice) for choice in Isolation]),
    default=str(Isolation.SUBPROCESS),
    show_default=True,
    help="subprocess: run a flower-superexec here for ServerApps. process: you run a "
    "flower-superexec yourself.",
)

simulation_option = click.option(
    "--simulation",
    is_flag=True,
    help=(
        "Simulate the SuperNodes of runs without --federation. Start every superlink of a "
        "runtime with the same setting."
    ),
)

SIMULATIONS = click.IntRange(min=1, max=10_000)
"""Simulations of one host. Superlinks store this number."""

max_simulations_option = click.option(
    "--max-concurrent-simulations",
    type=SIMULATIONS,
    show_default="1 for every two cores",
    help=(
        "Simulations that the SuperExec here runs at the same time; more wait, for this host or "
        "another."
    ),
)


def _login_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "https" or not parts.netloc or parts.query or parts.fragment:
        raise click.BadParameter(f"{value} is not an address such as https://HOST:PORT.")
    return value.rstrip("/")


login_url_option = click.option(
    "--login-url",
    type=_login_url,
    metavar="https://HOST:PORT",
    show_default="the certificate's name, and the port of Control",
    help="Address at which browsers reach Control, for the page that `flwr login` opens.",
)

accounts_option = click.option(
    "--accounts",
    is_flag=True,
    help=(
        "Calls of Control need an account, with `flwr login`. `flower-nats account create` "
        "makes accounts. Start every superlink of a runtime with the same setting."
    ),
)


self_registration_option = click.option(
    "--supernode-self-registration",
    is_flag=True,
    help="With accounts, also admit SuperNodes whose key no account has registered.",
)

require_accounts_option = click.option(
    "--require-accounts",
    is_flag=True,
    help="Serve Control to other machines only if accounts are on.",
)


def _issuer(value: str) -> str:
    parts = urlsplit(value)
    here = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if not parts.netloc or parts.scheme not in ({"https", "http"} if here else {"https"}):
        raise click.BadParameter(f"{value} is not an address such as https://HOST/PATH.")
    try:
        check_host(parts.hostname or "")
    except ValueError as exc:
        raise click.BadParameter(f"{value} is not an address: {exc}.") from exc
    return value


oidc_options = _together(
    click.option(
        "--oidc-issuer",
        type=_issuer,
        metavar="ISSUER",
        help=(
            "OIDC issuer that authenticates people, by its device grant. Write it exactly as "
            "the issuer names itself, like https://login.example.org/realms/hospital. With this "
            "option, --accounts is on."
        ),
    ),
    click.option(
        "--oidc-client-id",
        metavar="CLIENT_ID",
        help="Client id of this runtime at the issuer.",
    ),
    click.option(
        "--oidc-client-secret-file",
        type=FILE,
        help="File with the secret of that client. Default: it is a public client, without one.",
    ),
    click.option(
        "--oidc-scopes",
        metavar="SCOPES",
        default=OidcSettings.scopes,
        show_default=True,
        help="Scopes that the issuer is asked for.",
    ),
    click.option(
        "--oidc-audience",
        metavar="AUDIENCE",
        default="",
        show_default="the client id",
        help="Audience that ID tokens must name.",
    ),
    click.option(
        "--oidc-name-claim",
        metavar="CLAIM",
        default=OidcSettings.name_claim,
        show_default=True,
        help="Claim that gives accounts their names.",
    ),
    click.option(
        "--oidc-groups-claim",
        metavar="CLAIM",
        default=OidcSettings.groups_claim,
        show_default=True,
        help="Claim that lists a person's groups; a.b for claim b in claim a.",
    ),
    click.option(
        "--oidc-operator-group",
        metavar="GROUP",
        default="",
        show_default="none: roles are set by `flower-nats account role`",
        help="Group whose members are operators.",
    ),
    click.option(
        "--oidc-ca-certfile",
        type=FILE,
        help="CA certificate to verify the issuer with. Default: the authorities that this system "
        "trusts.",
    ),
)

supernode_auth_option = click.option(
    "--enable-supernode-auth",
    is_flag=True,
    help="Admit only SuperNodes whose public key was registered with `flwr supernode register`.",
)

record_metrics_option = click.option(
    "--record-metrics",
    is_flag=True,
    help="Record the numbers of the MetricRecords in replies of SuperNodes, and plot them in the "
    "console. Everyone who may see a run then sees these numbers. They are kept as long as the "
    "log of the run.",
)

superexec_secret_option = click.option(
    "--superexec-auth-secret-file",
    type=FILE,
    help="File with the secret that a SuperExec must share; read as raw bytes. Of two lines, each is a "
    "secret of its own. It is read again when it has changed.",
)

dependency_options = _together(
    click.option(
        "--disable-runtime-dependency-installation",
        is_flag=True,
        # Stock's own variable. A user who set it for stock wants the same here.
        default=lambda: os.environ.get("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION") == "1",
        show_default="off where uv reaches a package index",
        help="Do not install what a ServerApp depends on before it starts.",
    ),
    click.option(
        "--allow-runtime-dependency-installation",
        is_flag=True,
        help="Install it with `uv sync` for each run, also where no package index was reached at the "
        "start.",
    ),
)

superexec_app_options = _together(
    click.option(
        "--superexec-user",
        metavar="NAME",
        help="User of this machine who runs the flower-superexec and ServerApps. Only root "
        "can set it. Default: the user who starts this.",
    ),
    click.option(
        "--superexec-env",
        type=_words,
        metavar="NAME[,NAME...]",
        default="",
        help="Environment variables that ServerApps get beside those that apps usually need: names, or "
        "patterns such as AWS_*. One whose name looks like a secret has to be named in full.",
    ),
)

log_retention_option = click.option(
    "--log-retention",
    type=click.IntRange(min=0, max=100_000),
    metavar="DAYS",
    default=DEFAULT_LOG_RETENTION,
    show_default=True,
    help="Days after the end of a run for which its log, which `flwr log` shows, is kept; 0: for ever.",
)

run_retention_option = click.option(
    "--run-retention",
    type=click.IntRange(min=0, max=36_500),
    metavar="DAYS",
    default=DEFAULT_RUN_RETENTION,
    show_default=True,
    help="Days after its end for which a run is kept, with its log, its context, and its app if no "
    "other run has that; 0: for ever.",
)

max_artifact_option = click.option(
    "--max-artifact-mib",
    type=click.IntRange(min=0, max=2047),
    metavar="MIB",
    default=DEFAULT_MAX_ARTIFACTS,
    show_default=True,
    help=(
        "Most MiB that `flwr pull` gives of a run. Superlinks and gateways hold all of it in "
        "memory for a while."
    ),
)

audit_retention_option = click.option(
    "--audit-retention",
    type=click.IntRange(min=0, max=36_500),
    metavar="DAYS",
    default=DEFAULT_AUDIT_RETENTION,
    show_default=True,
    help="Days for which events of the audit trail (`flower-nats audit`) are kept; 0: for ever.",
)

node_retention_option = click.option(
    "--node-retention",
    type=click.IntRange(min=0, max=36_500),
    metavar="DAYS",
    default=DEFAULT_NODE_RETENTION,
    show_default=True,
    help="Days after which lists leave out a SuperNode that was not online since; 0: never. What it has "
    "done stays, and it is listed again once it comes online.",
)

peer_limit_options = _together(
    click.option(
        "--max-calls-per-address",
        type=click.IntRange(0),
        default=DEFAULT_CALLS_PER_ADDRESS,
        show_default=True,
        help="Calls that one client address may have in hand; 0: any number. All SuperNodes behind one "
        "NAT have one address. Use 0 behind a balancer that does not pass on client addresses.",
    ),
    click.option(
        "--max-connections-per-address",
        type=click.IntRange(0),
        default=DEFAULT_CONNECTIONS_PER_ADDRESS,
        show_default=True,
        help="Connections that one client address may have; 0: any number, as for calls.",
    ),
)

balancer_options = _together(
    click.option(
        "--trusted-balancers",
        type=_balancers,
        metavar="ADDRESS[,ADDRESS...]",
        default="",
        help=(
            "Balancers that pass on each client's address in the header "
            "flower-nats-client-address: addresses, networks such as 10.0.5.0/24, or names. "
            "From other senders this header is ignored. Default: none."
        ),
    ),
    click.option(
        "--control-by-balancer",
        type=_addresses,
        metavar="HOST:PORT[,HOST:PORT...]",
        default="",
        help=(
            "Address at which a balancer serves Control of this gateway, for the warnings and "
            "the metric about access to Control. Default: none."
        ),
    ),
    click.option(
        "--balancer-certfile",
        type=_words,
        metavar="FILE[,FILE...]",
        default="",
        help="The certificates that a balancer shows to clients, if their files are readable here: "
        "flower-nats status and the console then show when they expire. Default: none.",
    ),
)

storage_limit_options = _together(
    click.option(
        "--max-reply-mib",
        type=click.IntRange(0),
        default=StorageLimits.reply,
        show_default=True,
        help="MiB that one reply of a SuperNode may have; 0: any number.",
    ),
    click.option(
        "--max-node-mib",
        type=click.IntRange(0),
        default=StorageLimits.node,
        show_default=True,
        help="MiB of replies that one SuperNode may have stored at once, of all runs; 0: any number.",
    ),
    click.option(
        "--max-run-mib",
        type=click.IntRange(0),
        default=StorageLimits.run,
        show_default=True,
        help="MiB of messages and replies that one run may have stored at once; 0: any number.",
    ),
)

health_option = click.option(
    "--health-server-address",
    type=address_argument,
    metavar="HOST:PORT",
    help="Address of a gRPC health server without TLS. Default: none.",
)

http_health_options = _together(
    click.option(
        "--http-health-address",
        type=address_argument,
        metavar="HOST:PORT",
        help="Address of an HTTP server that answers GET /livez, /readyz and /metrics. Default: none.",
    ),
    click.option(
        "--drain-delay",
        type=click.FloatRange(0.0, 5.0),
        show_default="1 with a health address, else 0",
        help=(
            "Seconds after SIGTERM in which the process is not ready but still serves, so that "
            "a balancer notices."
        ),
    ),
)

log_options = _together(
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        show_default=True,
        help="Least severe level that is logged.",
    ),
    click.option(
        "--log-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="File for the log as JSON lines, in addition to the terminal; rotated by time.",
    ),
    click.option(
        "--log-rotation-interval-hours",
        type=click.IntRange(min=1),
        default=24,
        show_default=True,
        help="Hours after which the log file is rotated.",
    ),
    click.option(
        "--log-rotation-backup-count",
        type=click.IntRange(min=1),
        default=7,
        show_default=True,
        help="Rotated log files that are kept.",
    ),
)
