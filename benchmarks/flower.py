"""The stock Flower of one version: where its programs are, and which wire they speak."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

GRPC, HTTP = "grpc", "http"
WIRES = (GRPC, HTTP)

VERSIONS = {GRPC: "1.33.0", HTTP: "1.42.0"}
"""The flwr that is measured on each wire: the last one that is all gRPC, and the newest."""

FOLDER_VARIABLE = "FLOWER_NATS_MATRIX_DIR"
_DEFAULT_FOLDER = Path(__file__).parents[1] / ".matrix"


class NoEnvironment(Exception):
    """A version of flwr is not there, or none that is measured."""


@dataclass(frozen=True)
class Flower:
    """One version of flwr in an environment of its own."""

    version: str
    wire: str
    scripts: Path

    def program(self, name: str) -> str:
        """The path of one of its programs."""
        return str(self.scripts / name)

    def variables(self, home: Path) -> dict[str, str]:
        """Variables for its programs: they find each other, and nothing of ours."""
        return {
            "PATH": os.pathsep.join([str(self.scripts), os.environ["PATH"]]),
            "PYTHONPATH": "",
            "FLWR_HOME": str(home),
        }

    def superexec(self, address: str) -> list[str]:
        """The command of a SuperExec that starts ServerApps."""
        command = [self.program("flower-superexec"), "--insecure"]
        if self.wire == GRPC:
            return [*command, "--plugin-type", "serverapp", "--appio-api-address", address]
        return [*command, "--runtime-api-address", address]

    def supernode(self, superlink: str, own: str) -> list[str]:
        """The command of a SuperNode whose own API is at ``own``."""
        command = [self.program("flower-supernode"), "--insecure", "--superlink", superlink]
        if self.wire == GRPC:
            return [*command, "--clientappio-api-address", own]
        host, _, port = own.rpartition(":")
        return [*command, "--host", host, "--port", port]


def flower(version: str) -> Flower:
    """The environment of a version of flwr.

    Raises:
        NoEnvironment: There is none, or its clients do not all speak one wire.
    """
    folder = Path(os.environ.get(FOLDER_VARIABLE) or _DEFAULT_FOLDER).resolve() / version
    if not (folder / "bin" / "flower-superlink").exists():
        raise NoEnvironment(f"There is no flwr {version} in {folder}: make it with `make matrix`.")
    return Flower(version, wire_of(version), folder / "bin")


def wire_of(version: str) -> str:
    """The wire that all clients of a version speak.

    Raises:
        NoEnvironment: They speak different ones, or ServerApps another API than the benchmark's.
    """
    minor = tuple(int(part) for part in version.split(".")[:2])
    if (1, 30) <= minor <= (1, 33):
        return GRPC
    if minor >= (1, 40):
        return HTTP
    raise NoEnvironment(f"flwr {version} is not measured: 1.30 to 1.33 and 1.40 or newer are.")
