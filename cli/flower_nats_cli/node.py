"""`flower-nats node`: commands for SuperNodes that are registered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flower_nats_cli.operator_commands import ask, runtime_options


@click.group()
def node() -> None:
    """Manage SuperNodes that are registered."""


@node.command("rotate-key")
@click.argument("node_id", type=click.IntRange(1, 2**64 - 1))
@click.argument(
    "public_key",
    metavar="PUBLIC_KEY_FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@runtime_options
@click.pass_context
def rotate_key(context: click.Context, /, node_id: int, public_key: Path, **options: Any) -> None:
    """Give a SuperNode a new key. It keeps its id, its account, its federations and its history.

    The old key is refused from now on. When the SuperNode connects with the new key, it gets its
    unanswered instructions again.
    """
    key = public_key.read_bytes()
    ask(context, options, "RotateNodeKey", node_id=node_id, public_key=_pem(key))
    click.echo(f"SuperNode {node_id} has the new key. Start the SuperNode again with the new key.")


def _pem(key: bytes) -> bytes:
    """Return a public key in the form that SuperNodes send; the file may be in OpenSSH's format."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_public_key,
        load_ssh_public_key,
    )

    load = load_ssh_public_key if key.startswith(b"ecdsa-") else load_pem_public_key
    try:
        loaded = load(key)
        return loaded.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise click.ClickException(
            f"The file contains no public key of a SuperNode: {exc}."
        ) from exc
