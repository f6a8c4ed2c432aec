"""Settings from the options that several commands share; wrong values raise a UsageError."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from flower_nats.logs import configure_logs
from flower_nats.model.superexec_secret import read_superexec_secrets
from flower_nats.settings import (
    GatewaySettings,
    LogSettings,
    OidcSettings,
    StorageLimits,
    SuperexecSettings,
    SuperlinkSettings,
    TlsFiles,
)
from flower_nats_cli.addresses import LOOPBACK, check_distinct, is_of_loopback, join_address
from flower_nats_cli.app_dependencies import installs_dependencies
from flower_nats_cli.certificates import check_certificate, check_files
from flower_nats_cli.options import database_url, nats_urls

Options = Mapping[str, Any]
T = TypeVar("T")


def nats_servers(options: Options) -> tuple[str, ...]:
    """Read `--nats` or `--nats-file`; raises UsageError."""
    return value_or_file(options, "nats", nats_urls)


def nats_ca_certificate(options: Options, urls: Sequence[str]) -> Path | None:
    """Read `--nats-ca-certfile`, which is for servers that speak TLS; raises UsageError."""
    path: Path | None = options["nats_ca_certfile"]
    if path is None:
        return None
    check_certificate(path, "--nats-ca-certfile")
    if not all(url.startswith("tls://") for url in urls):
        raise click.UsageError(
            "--nats-ca-certfile is for NATS servers with TLS: write tls:// instead of nats:// "
            "in every URL, or leave the option out."
        )
    return path.absolute()


def database(options: Options) -> str:
    """Read `--database` or `--database-file`; raises UsageError."""
    return value_or_file(options, "database", database_url)


def value_or_file(options: Options, name: str, parse: Callable[[str], T]) -> T:
    """Read an option that may be given by a file: `--<name>`, or `--<name>-file` that holds its value.

    Raises UsageError if neither or both are given, and for values that `parse` refuses.
    """
    flag, file_flag = f"--{name}", f"--{name}-file"
    given: T | None = options[name]
    path: Path | None = options[f"{name}_file"]
    if given is not None and path is not None:
        raise click.UsageError(
            f"{flag} and {file_flag} set the same value. Remedy: leave one of them out; it may "
            "also come from its environment variable or the --config file."
        )
    if given is not None:
        return given
    if path is None:
        raise click.UsageError(f"Missing option '{flag}', or '{file_flag}'.")
    try:
        return parse(path.read_text(encoding="utf-8").strip())
    except UnicodeDecodeError as exc:
        raise click.BadParameter(f"{path} is not text in UTF-8.", param_hint=file_flag) from exc
    except click.BadParameter as exc:
        raise click.BadParameter(f"{path}: {exc.message}", param_hint=file_flag) from exc


def drain_delay(options: Options) -> float:
    """Read `--drain-delay`. Its default is 0 without a health address: no balancer asks then."""
    given: float | None = options["drain_delay"]
    if given is not None:
        return given
    return 1.0 if options["http_health_address"] or options.get("health_server_address") else 0.0


def log_settings(options: Options) -> LogSettings:
    """Read `log_options`."""
    return LogSettings(
        level=options["log_level"],
        file=options["log_file"],
        rotation_interval_hours=options["log_rotation_interval_hours"],
        rotation_backup_count=options["log_rotation_backup_count"],
    )


def start_logs(settings: LogSettings) -> None:
    """Log as the settings say from now on; raises BadParameter if the file cannot be written."""
    try:
        configure_logs(settings)
    except OSError as exc:
        raise click.BadParameter(
            f"{settings.file} cannot be written: {exc.strerror}. Remedy: create its directory if "
            "it is missing, or choose another --log-file.",
            param_hint="--log-file",
        ) from exc


def tls_files(options: Options, prefix: str = "") -> TlsFiles | None:
    """Read the three files of `tls_options` (prefix "" or "appio_"); None for no TLS.

    Raises UsageError if some of the three are missing or invalid.
    """
    if options["insecure"]:
        return None
    names = [f"{prefix}ssl_{kind}" for kind in ("certfile", "keyfile", "ca_certfile")]
    certificate, key, ca_certificate = (options[name] for name in names)
    if certificate and key and ca_certificate:
        # Not `resolve`: certificates may be renewed by giving a symbolic link another target.
        files = TlsFiles(certificate.absolute(), key.absolute(), ca_certificate.absolute())
        check_files(files, f"{prefix}ssl".replace("_", "-"))
        return files
    if certificate or key or ca_certificate:
        flags = ", ".join("--" + name.replace("_", "-") for name in names)
        raise click.UsageError(f"TLS needs all three of {flags}.")
    return None


def check_supernode_auth(options: Options, *, encrypted: bool) -> bool:
    """Read `supernode_auth_option`; raises UsageError without TLS, as stock does."""
    enabled = bool(options["enable_supernode_auth"])
    if enabled and not encrypted:
        raise click.UsageError(
            "--enable-supernode-auth needs TLS: give --ssl-certfile, --ssl-keyfile and "
            "--ssl-ca-certfile, and not --insecure."
        )
    return enabled


def oidc_settings(options: Options) -> OidcSettings | None:
    """Read `oidc_options`, None without an issuer. Raises UsageError."""
    issuer, client_id = options["oidc_issuer"], options["oidc_client_id"]
    if issuer is None:
        if client_id is not None:
            raise click.UsageError("--oidc-client-id needs --oidc-issuer.")
        return None
    if client_id is None:
        raise click.UsageError(
            "--oidc-issuer needs --oidc-client-id, the id of this runtime at the issuer."
        )
    secret_file: Path | None = options["oidc_client_secret_file"]
    ca_certificate: Path | None = options["oidc_ca_certfile"]
    if ca_certificate is not None:
        check_certificate(ca_certificate, "--oidc-ca-certfile")
    return OidcSettings(
        url=issuer,
        client_id=client_id,
        client_secret_file=secret_file.absolute() if secret_file else None,
        scopes=options["oidc_scopes"],
        audience=options["oidc_audience"],
        name_claim=options["oidc_name_claim"],
        groups_claim=options["oidc_groups_claim"],
        operator_group=options["oidc_operator_group"],
        ca_certificate=ca_certificate.absolute() if ca_certificate else None,
    )


def http_api_address(options: Options, host: str) -> str:
    """Read where HTTP is served, "" for nowhere; `host` is the default. Raises UsageError."""
    given_host, given_port = options["host"], options["port"]
    if options["http_api_address"] is None:
        port = 8000 if given_port is None else given_port
        return join_address((given_host or host).strip("[]"), port)
    if given_host is not None or given_port is not None:
        raise click.UsageError(
            "--http-api-address sets the same as --host and --port. Remedy: leave one of them "
            "out; it may also come from its environment variable or the --config file."
        )
    return api_address(options, "http", host, 8000)


def api_address(options: Options, api: str, host: str, port: int) -> str:
    """Read one of `api_address_options`, "" for none; `host` and `port` are the default."""
    address: str | None = options[f"{api}_api_address"]
    return join_address(host, port) if address is None else address


def serverappio_api_address(options: Options, host: str, *, protected: bool) -> str:
    """Read where ServerAppIo is served over gRPC, "" for nowhere; `host` is the default.

    Raises UsageError if other machines would reach it without a secret or without TLS, and no
    option allows that.
    """
    open_to_others = protected or options["insecure_appio"]
    address = api_address(options, "serverappio", host if open_to_others else LOOPBACK, 9091)
    if address and not (open_to_others or is_of_loopback(address)):
        raise click.UsageError(
            f"With --serverappio-api-address {address}, anyone who reaches that address could "
            "take runs. Remedy: --superexec-auth-secret-file together with "
            "--appio-ssl-certfile, --appio-ssl-keyfile and --appio-ssl-ca-certfile; or a "
            "loopback address; or --insecure-appio."
        )
    return address


def check_gateway_addresses(settings: GatewaySettings, **others: str) -> None:
    """Raise UsageError if a gateway would listen nowhere, or two servers on one port.

    The servers are those of the gateway, and `others`.
    """
    apis = {
        "--http-api-address": settings.http_api_address,
        "--serverappio-api-address": settings.serverappio_api_address,
        "--fleet-api-address": settings.fleet_api_address,
        "--control-api-address": settings.control_api_address,
    }
    if not any(apis.values()):
        raise click.UsageError(f"All APIs are off. Remedy: turn on one of {', '.join(apis)}.")
    check_distinct(
        {
            **others,
            **apis,
            "--http-loopback-address": settings.http_loopback_address,
            "--health-server-address": settings.health_server_address,
            "--http-health-address": settings.http_health_address,
        }
    )


def check_superlink_addresses(settings: SuperlinkSettings) -> None:
    """Raise UsageError if both health servers of a superlink would listen on one port."""
    check_distinct(
        {
            "--health-server-address": settings.health_server_address,
            "--http-health-address": settings.http_health_address,
        }
    )


def superexec_secret_file(options: Options) -> Path | None:
    """Return the file of `superexec_secret_option`; raises UsageError if it is empty."""
    path: Path | None = options["superexec_auth_secret_file"]
    if path is None:
        return None
    try:
        read_superexec_secrets(path)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    return path.absolute()


def superexec_settings(
    options: Options, address: str, ca_certificate: Path | None
) -> SuperexecSettings:
    """Read the settings of our own SuperExec. Raises UsageError."""
    # A SuperExec with a secret that it cannot use would be restarted again and again.
    secret_file = superexec_secret_file(options)
    return SuperexecSettings(
        runtime_api_address=address,
        ca_certificate=ca_certificate,
        auth_secret_file=secret_file,
        runtime_dependency_installation=installs_dependencies(options),
        environment=options["superexec_env"],
        user=options["superexec_user"],
        max_simulations=options["max_concurrent_simulations"],
    )


def storage_limits(options: Options) -> StorageLimits:
    """Read the storage limits of replies, nodes and runs."""
    return StorageLimits(
        reply=options["max_reply_mib"], node=options["max_node_mib"], run=options["max_run_mib"]
    )
