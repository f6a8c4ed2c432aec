"""Imports go downwards, and one place imports each library (docs/architecture.md, Rules)."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "flower_nats": ROOT / "flower_nats",
    "flower_nats_gateway": ROOT / "gateway" / "flower_nats_gateway",
    "flower_nats_console": ROOT / "console" / "flower_nats_console",
    "flower_nats_cli": ROOT / "cli" / "flower_nats_cli",
}

Layers = Sequence[Sequence[str]]
"""Layers from the top down; packages of one layer may use each other."""

ALL: Layers = [
    ["flower_nats_cli"],
    ["flower_nats_gateway", "flower_nats_console"],
    ["flower_nats"],
]

OF_GATEWAY: Layers = [
    ["process"],
    ["transports"],
    ["api"],
    ["auth", "delivery", "runlog"],
    ["cluster"],
    ["calls"],
]

OF_RUNTIME: Layers = [
    ["superlink", "embedded"],
    ["broker", "store"],
    ["wire", "model"],
]
"""Beside them are single files for all packages: settings, logs, metrics, health, stopping."""

OF_SUPERLINK: Layers = [
    ["worker"],
    ["wiring"],
    ["console"],
    ["operators"],
    ["api"],
    ["accounts", "housekeeping"],
    ["runs"],
    ["codecs", "convert"],
]

LIBRARIES: Mapping[str, Sequence[str]] = {
    "nats": ["flower_nats.broker"],
    "psycopg": ["flower_nats.store"],
    "grpc": [
        "flower_nats.grpc_health",
        "flower_nats_gateway.transports",
        "flower_nats_gateway.process",
    ],
    "grpc_health": [
        "flower_nats.grpc_health",
        "flower_nats_gateway.transports",
        "flower_nats_gateway.process",
    ],
    "uvicorn": ["flower_nats_gateway.transports.http", "flower_nats_console.process"],
    "starlette": ["flower_nats_console"],
    "jinja2": ["flower_nats_console.pages"],
    "playwright": [],
    "prometheus_client": ["flower_nats.metrics"],
    "httptools": ["flower_nats_gateway.transports.http"],
    "argon2": ["flower_nats.model.password"],
    "awscrt": ["flower_nats_gateway.auth.signatures"],
    "click": ["flower_nats_cli"],
    "flwr": [],
    "httpx": [
        "flower_nats.superlink.accounts.oidc",
        "flower_nats.superlink.housekeeping.webhook_sender",
    ],
    "joserfc": ["flower_nats.superlink.accounts.oidc"],
    "harness": [],
    "tests": [],
    "benchmarks": [],
}
"""The only packages that import each library."""


BESIDE: Mapping[str, Sequence[str]] = {
    "benchmarks": ["tests"],
    "harness": ["tests", "benchmarks"],
}
"""Folders beside the packages, and the folders that each must not import."""


def modules(packages: Mapping[str, Path]) -> Iterator[tuple[str, ast.Module]]:
    for package, folder in packages.items():
        for file in sorted(folder.rglob("*.py")):
            if not file.stem.endswith("_pb2"):
                parts = file.relative_to(folder).with_suffix("").parts
                yield ".".join((package, *parts)), ast.parse(file.read_text())


def imports(packages: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """Yield pairs of full names: the importing module, and the imported name."""
    for name, tree in modules(packages):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield name, alias.name
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name} imports relatively"
                for alias in node.names:
                    yield name, f"{node.module}.{alias.name}"


IMPORTS = list(imports(PACKAGES))


def upwards(layers: Layers, prefix: str = "") -> list[str]:
    """Return the imports that go up, or to a layer that is not allowed."""
    rank = {prefix + name: number for number, layer in enumerate(layers) for name in layer}

    def layer_of(module: str) -> int | None:
        found = [number for name, number in rank.items() if is_in(module, name)]
        return found[0] if found else None

    bad = []
    for importer, imported in IMPORTS:
        above, below = layer_of(importer), layer_of(imported)
        if above is not None and below is not None and below < above:
            bad.append(f"{importer} imports {imported}")
    return bad


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_the_runtime_knows_nothing_of_gateways_and_nothing_knows_the_command() -> None:
    assert upwards(ALL) == []


def test_gateways_and_the_console_know_nothing_of_each_other() -> None:
    pair = ("flower_nats_gateway", "flower_nats_console")
    crossing = [
        f"{importer} imports {imported}"
        for importer, imported in IMPORTS
        for one, other in (pair, pair[::-1])
        if is_in(importer, one) and is_in(imported, other)
    ]
    assert crossing == []


def test_a_gateways_imports_go_downwards() -> None:
    assert upwards(OF_GATEWAY, "flower_nats_gateway.") == []


def test_a_runtimes_imports_go_downwards() -> None:
    assert upwards(OF_RUNTIME, "flower_nats.") == []
    assert upwards(OF_SUPERLINK, "flower_nats.superlink.") == []


def test_packages_that_stand_together_do_not_use_each_other_in_circles() -> None:
    for layer in OF_GATEWAY:
        names = [f"flower_nats_gateway.{name}" for name in layer]
        pairs = {
            (one, other)
            for importer, imported in IMPORTS
            for one in names
            for other in names
            if one != other and is_in(importer, one) and is_in(imported, other)
        }
        assert not {(one, other) for one, other in pairs if (other, one) in pairs}


def test_brokers_and_stores_know_nothing_of_each_other() -> None:
    crossing = [
        f"{importer} imports {imported}"
        for importer, imported in IMPORTS
        for one, other in (("broker", "store"), ("store", "broker"))
        if is_in(importer, f"flower_nats.{one}") and is_in(imported, f"flower_nats.{other}")
    ]
    assert crossing == []


def test_each_library_is_known_in_one_place() -> None:
    strays = [
        f"{importer} imports {imported}"
        for importer, imported in IMPORTS
        for library, places in LIBRARIES.items()
        if is_in(imported, library) and not any(is_in(importer, place) for place in places)
    ]
    assert strays == []


def test_what_stands_beside_the_packages_imports_downwards_too() -> None:
    crossing = [
        f"{importer} imports {imported}"
        for importer, imported in imports({name: ROOT / name for name in BESIDE})
        for other in BESIDE[importer.partition(".")[0]]
        if is_in(imported, other)
    ]
    assert crossing == []


def test_every_package_has_its_layer() -> None:
    """Otherwise a new package could import anything."""
    runtime = PACKAGES["flower_nats"]
    for folder, layers in (
        (PACKAGES["flower_nats_gateway"], OF_GATEWAY),
        (runtime, OF_RUNTIME),
        (runtime / "superlink", OF_SUPERLINK),
    ):
        packages = {each.parent.name for each in folder.glob("*/__init__.py")}
        assert packages == {
            name for layer in layers for name in layer if not (folder / f"{name}.py").exists()
        }
