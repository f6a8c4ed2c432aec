"""The stock Flower that is measured: one version on each wire."""

from __future__ import annotations

from packaging.version import Version

from harness.flower import GRPC, HTTP, Flower
from harness.flower_environments import VERSIONS as KNOWN
from harness.flower_environments import environment

WIRES = (GRPC, HTTP)

VERSIONS = {GRPC: "1.33.0", HTTP: KNOWN[-1]}
"""The flwr that is measured on each wire: the last one that is all gRPC, and the newest."""


class NotMeasured(Exception):
    """The benchmark cannot simulate the clients of this flwr."""


def flower(version: str) -> Flower:
    """Return a flwr in an environment of its own; make the environment if it is missing.

    Raises:
        NotMeasured, InstallError
    """
    wire_of(version)
    return Flower(environment(version))


def wire_of(version: str | Version) -> str:
    """Return the wire that all clients of a version speak.

    Raises:
        NotMeasured: Its clients speak different wires, or its ServerApps use another API.
    """
    minor = Version(str(version)).release[:2]
    if (1, 30) <= minor <= (1, 33):
        return GRPC
    if minor >= (1, 40):
        return HTTP
    raise NotMeasured(f"flwr {version} is not measured: 1.30 to 1.33 and 1.40 or newer are.")
