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
    """A version of flwr whose clients the benchmark cannot be."""


def flower(version: str) -> Flower:
    """A version of flwr, in an environment of its own, which is made if it is not there.

    Raises:
        NotMeasured, InstallError
    """
    wire_of(version)
    return Flower(environment(version))


def wire_of(version: str | Version) -> str:
    """The wire that all clients of a version speak.

    Raises:
        NotMeasured: They speak different ones, or ServerApps another API than the benchmark's.
    """
    minor = Version(str(version)).release[:2]
    if (1, 30) <= minor <= (1, 33):
        return GRPC
    if minor >= (1, 40):
        return HTTP
    raise NotMeasured(f"flwr {version} is not measured: 1.30 to 1.33 and 1.40 or newer are.")
