"""Imports go downwards only (docs/architecture.md, Rules)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "flower_nats"
GATEWAY = ROOT / "gateway" / "flower_nats_gateway"
CLI = ROOT / "cli" / "flower_nats_cli"

GATEWAY_LAYERS = (
    ("process",),
    ("transports",),
    ("api",),
    ("delivery", "runlog", "auth"),
    ("cluster",),
    ("calls",),
)
"""The gateway's packages from the top down; those of one layer may know each other."""

# Nobody else imports these: where each outside system and each wire is.
ONLY_IN = {
    "psycopg": ("flower_nats/store",),
    "nats": ("flower_nats/broker",),
    "grpc": (
        "gateway/flower_nats_gateway/transports",
        "gateway/flower_nats_gateway/process",
        "flower_nats/grpc_health.py",
    ),
    "uvicorn": ("gateway/flower_nats_gateway/transports/http",),
    "httptools": ("gateway/flower_nats_gateway/transports/http",),
    "flwr": (),
}


def modules(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.py")) if not path.name.endswith("_pb2.py")]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def layer_of(package: str) -> int:
    [found] = [number for number, layer in enumerate(GATEWAY_LAYERS) if package in layer]
    return found


@pytest.mark.parametrize("path", modules(RUNTIME), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_runtime_knows_neither_the_gateway_nor_the_command_line(path: Path) -> None:
    assert not [
        name
        for name in imported(path)
        if name.startswith(("flower_nats_gateway", "flower_nats_cli"))
    ]


@pytest.mark.parametrize("path", modules(GATEWAY), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_packages_of_the_gateway_import_downwards(path: Path) -> None:
    names = [name.split(".") for name in imported(path)]
    assert not [name for name in names if name[0] == "flower_nats_cli"]
    if path.parent == GATEWAY:
        return
    own = layer_of(path.relative_to(GATEWAY).parts[0])
    upwards = [
        ".".join(name)
        for name in names
        if name[0] == "flower_nats_gateway" and len(name) > 1 and layer_of(name[1]) < own
    ]

    assert not upwards


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_where_it_belongs(library: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for folder in (RUNTIME, GATEWAY, CLI)
        for path in modules(folder)
        if any(name.split(".")[0] == library for name in imported(path))
    }

    assert not {user for user in users if not user.startswith(ONLY_IN[library])}
