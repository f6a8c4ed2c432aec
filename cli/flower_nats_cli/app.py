"""`flower-nats app`: signatures of apps, for SuperNodes that run only apps with a trusted signature."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from flower_nats.logs import configure_logs
from flower_nats.model.app_signature import (
    AppSignature,
    BadAppSignature,
    read_app_signature,
    sign_fab,
)
from flower_nats.model.errors import ApiError
from flower_nats.model.fab import MAX_FAB_BYTES
from flower_nats.settings import LogSettings
from flower_nats_cli import options as opts
from flower_nats_cli import settings_from_options as read
from flower_nats_cli.datadir import DataDir
from flower_nats_cli.runtime_client import runtime_client
from flower_nats_cli.which_runtime import not_running

_PATIENCE_SECONDS = 10.0

_LONGEST_SIGNATURE = 64 * 1024
"""Bytes: a larger file is not read as a signature."""

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def app() -> None:
    """Sign apps, and give their signatures to SuperNodes.

    First run `app sign` on the machine with the key, for a file that `flwr build` has made. Then
    run `app accept` on the machine of the runtime. Then submit the same app with `flwr run`.
    """


@app.command()
@click.argument("fab", type=_file)
@click.option(
    "--key",
    required=True,
    type=_file,
    show_envvar=True,
    help="Private Ed25519 key, as `ssh-keygen -t ed25519` makes it.",
)
@click.option(
    "--key-id",
    default="",
    metavar="ID",
    show_envvar=True,
    help="Name of the key for SuperNodes. Default: its fingerprint.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the signature. Default: FAB with .sig added.",
)
def sign(fab: Path, key: Path, key_id: str, output: Path | None) -> None:
    """Sign FAB, a file that `flwr build` has made.

    Build and submit the app with the same version of Flower. Another version may pack it
    differently, and the signature would not match.
    """
    content = fab.read_bytes()
    if len(content) > MAX_FAB_BYTES:
        raise click.ClickException(
            f"{fab} has more than {MAX_FAB_BYTES:,} bytes, so it is not an app."
        )
    try:
        signature = sign_fab(content, _private_key(key), key_id, int(time.time()))
    except BadAppSignature as exc:
        raise click.UsageError(f"{exc}.") from exc
    target = output or fab.with_name(f"{fab.name}.sig")
    target.write_text(signature.to_json(), "utf-8")
    trusted = f"{json.dumps(signature.key_id)}: {json.dumps(signature.public_key)}"
    click.echo(
        f"Signed {fab} as {signature.key_id}: {target}\n\n1. On the runtime's host: flower-nats "
        f"app accept {target.name}\n2. SuperNodes that trust this key need this line in their "
        f"file of --trusted-entities:\n\n{trusted}\n"
    )


@app.command()
@click.argument("signature", type=_file)
@opts.data_dir_option
@opts.status_nats_options
def accept(signature: Path, **options: Any) -> None:
    """Accept SIGNATURE, made by `app sign`. SuperNodes then get it with the app.

    The app may be submitted later. The runtime is that of `flower-nats up` on --data-dir, or the
    one on the NATS servers of --nats.
    """
    configure_logs(LogSettings(level="error"))
    found = _read(signature)
    try:
        asyncio.run(_add(*_servers(options), found))
    except ApiError as exc:
        raise click.ClickException(exc.detail) from exc
    click.echo(f"SuperNodes now get app {found.fab_hash} with the signature of {found.key_id}.")


def _private_key(path: Path) -> Ed25519PrivateKey:
    data, password = path.read_bytes(), None
    for _ in range(2):
        try:
            key = load_ssh_private_key(data, password)
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            if password is None and "password" in str(exc).lower():
                password = click.prompt(f"Passphrase of {path}", hide_input=True).encode()
                continue
            raise click.ClickException(
                f"{path} cannot be read as a private key of OpenSSH: {exc}"
            ) from exc
        if isinstance(key, Ed25519PrivateKey):
            return key
        break
    raise click.ClickException(
        f"{path} is not an Ed25519 key. Remedy: ssh-keygen -t ed25519 -f my-key"
    )


def _read(path: Path) -> AppSignature:
    try:
        with path.open(encoding="utf-8") as file:
            return read_app_signature(file.read(_LONGEST_SIGNATURE))
    except (BadAppSignature, UnicodeDecodeError) as exc:
        raise click.ClickException(
            f"{path} is not a signature made by `flower-nats app sign`: {exc}."
        ) from exc


def _servers(options: read.Options) -> tuple[Sequence[str], Path | None]:
    if options["nats"] is not None or options["nats_file"] is not None:
        nats = read.nats_servers(options)
        return nats, read.nats_ca_certificate(options, nats)
    data = DataDir(options["data_dir"])
    state = data.state()
    if state is None:
        raise click.ClickException(not_running(data))
    return state.nats, None


async def _add(nats: Sequence[str], ca_certificate: Path | None, signature: AppSignature) -> None:
    async with runtime_client(nats, ca_certificate) as client:
        await client.ask("AddAppSignature", _PATIENCE_SECONDS, signature=signature.to_json())
