"""The programs of one flwr: which wire each of them speaks, and the flags it has for that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from tests.harness.environment import free_port
from tests.matrix.environments import Environment

CONNECTION = "matrix"
GRPC, HTTP = "gRPC", "HTTP"

_RUNTIME_OVER_HTTP = Version("1.35")
_CONTROL_OVER_HTTP = Version("1.37")
_FLEET_OVER_HTTP = Version("1.40")


@dataclass(frozen=True)
class Addresses:
    """`host:port` of a server: one for each API over gRPC, one for all of them over HTTP."""

    serverappio: str
    fleet: str
    control: str
    http: str

    @classmethod
    def free(cls) -> Addresses:
        """Return addresses where nobody listens."""
        return cls(*(f"127.0.0.1:{free_port()}" for _ in range(4)))


@dataclass(frozen=True)
class Flower:
    """The stock programs of one version."""

    environment: Environment

    @property
    def version(self) -> Version:
        return self.environment.version

    @property
    def runtime_wire(self) -> str:
        """How a SuperExec and the ServerApps that it starts call."""
        return HTTP if self.version >= _RUNTIME_OVER_HTTP else GRPC

    @property
    def fleet_wire(self) -> str:
        """How SuperNodes call."""
        return HTTP if self.version >= _FLEET_OVER_HTTP else GRPC

    @property
    def control_wire(self) -> str:
        """How `flwr` calls."""
        return HTTP if self.version >= _CONTROL_OVER_HTTP else GRPC

    def superexec(self, addresses: Addresses) -> list[str]:
        """Return the command of a SuperExec that starts ServerApps."""
        address = addresses.http if self.runtime_wire == HTTP else addresses.serverappio
        renamed = self.version >= Version("1.36")
        return [
            *(self.environment.program("flower-superexec"), "--insecure"),
            *("--runtime-api-address" if renamed else "--appio-api-address", address),
            *(() if self.version >= Version("1.38") else ("--plugin-type", "serverapp")),
        ]

    def supernode(self, addresses: Addresses, number: int) -> list[str]:
        """Return the command of a SuperNode whose node config says its number."""
        address = addresses.fleet if self.fleet_wire == GRPC else addresses.http
        port = str(free_port())
        own_api = (
            ("--host", "127.0.0.1", "--port", port)
            if self.version >= Version("1.35")
            else ("--clientappio-api-address", f"127.0.0.1:{port}")
        )
        return [
            *(self.environment.program("flower-supernode"), "--insecure", "--superlink", address),
            *own_api,
            *("--node-config", f"number={number}"),
        ]

    def superlink(self, addresses: Addresses) -> list[str]:
        """Return the command of the version's own server."""
        command = [self.environment.program("flower-superlink"), "--insecure"]
        command += ["--isolation", "process"]
        if self.runtime_wire == GRPC:
            command += ["--serverappio-api-address", addresses.serverappio]
        else:
            host, port = addresses.http.split(":")
            command += ["--host", host, "--port", port]
        if self.fleet_wire == GRPC:
            command += ["--fleet-api-address", addresses.fleet]
        if self.control_wire == GRPC:
            command += ["--control-api-address", addresses.control]
        return command

    def write_config(self, home: Path, addresses: Addresses) -> None:
        """Make the server known to `flwr` with this FLWR_HOME."""
        address = addresses.control if self.control_wire == GRPC else addresses.http
        home.mkdir(parents=True, exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n\n'
            f'[superlink.{CONNECTION}]\naddress = "{address}"\ninsecure = true\n'
        )
