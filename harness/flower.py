"""The programs of one flwr release: the wire that each of them speaks, and its flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from harness.environment import free_port
from harness.flower_environments import Environment

CONNECTION = "under-test"
GRPC, HTTP = "gRPC", "HTTP"


@dataclass(frozen=True)
class Addresses:
    """`host:port` of a server: one for each API over gRPC, one for all of them over HTTP."""

    serverappio: str
    fleet: str
    control: str
    http: str

    @classmethod
    def free(cls) -> Addresses:
        """Return addresses on which no server listens."""
        return cls(*(f"127.0.0.1:{free_port()}" for _ in range(4)))


def runtime_wire(version: Version) -> str:
    """The wire of a SuperExec and of the ServerApps that it starts."""
    return HTTP if version >= Version("1.35") else GRPC


def control_wire(version: Version) -> str:
    """The wire of `flwr`."""
    return HTTP if version >= Version("1.37") else GRPC


def fleet_wire(version: Version) -> str:
    """The wire of SuperNodes."""
    return HTTP if version >= Version("1.40") else GRPC


@dataclass(frozen=True)
class Flower:
    """The stock programs of one version."""

    environment: Environment

    @property
    def version(self) -> Version:
        return self.environment.version

    def runtime_address(self, addresses: Addresses) -> str:
        """Return the address of a server for its SuperExec and ServerApps."""
        return addresses.http if runtime_wire(self.version) == HTTP else addresses.serverappio

    def fleet_address(self, addresses: Addresses) -> str:
        """Return the address of a server for its SuperNodes."""
        return addresses.http if fleet_wire(self.version) == HTTP else addresses.fleet

    def control_address(self, addresses: Addresses) -> str:
        """Return the address of a server for its `flwr`."""
        return addresses.http if control_wire(self.version) == HTTP else addresses.control

    def superexec(
        self, address: str, ca_certificate: Path | None = None, secret: Path | None = None
    ) -> list[str]:
        """Return the command of a SuperExec that starts ServerApps."""
        renamed = self.version >= Version("1.36")
        return [
            *(self.environment.program("flower-superexec"), *_trust(ca_certificate)),
            *("--runtime-api-address" if renamed else "--appio-api-address", address),
            *(() if self.version >= Version("1.38") else ("--plugin-type", "serverapp")),
            *(("--superexec-auth-secret-file", str(secret)) if secret else ()),
        ]

    def supernode(
        self,
        superlink: str,
        node_config: str,
        ca_certificate: Path | None = None,
        key: Path | None = None,
    ) -> list[str]:
        """Return the command of a SuperNode, with a registered key or a key of its own."""
        port = str(free_port())
        is_http = self.version >= Version("1.35")
        return [
            *(self.environment.program("flower-supernode"), *_trust(ca_certificate)),
            *("--superlink", superlink),
            # The SuperNode's own API, which its ClientApps call.
            *(("--host", "127.0.0.1", "--port", port) if is_http else ()),
            *(() if is_http else ("--clientappio-api-address", f"127.0.0.1:{port}")),
            *("--node-config", node_config),
            *(("--auth-supernode-private-key", str(key)) if key else ()),
        ]

    def superlink(self, addresses: Addresses) -> list[str]:
        """Return the command of this version's SuperLink, with the flags that all uses share."""
        command = [self.environment.program("flower-superlink")]
        if runtime_wire(self.version) == HTTP:
            host, port = addresses.http.split(":")
            command += ["--host", host, "--port", port]
        else:
            command += ["--serverappio-api-address", addresses.serverappio]
        if fleet_wire(self.version) == GRPC:
            command += ["--fleet-api-address", addresses.fleet]
        if control_wire(self.version) == GRPC:
            command += ["--control-api-address", addresses.control]
        return command

    def addresses_of(self, addresses: Addresses) -> set[str]:
        """Return the addresses that a server needs to serve all clients of this version."""
        return {
            self.runtime_address(addresses),
            self.fleet_address(addresses),
            self.control_address(addresses),
        }

    def write_config(
        self, home: Path, addresses: Addresses, ca_certificate: Path | None = None
    ) -> None:
        """Write the server's address into the `flwr` configuration of this FLWR_HOME."""
        home.mkdir(parents=True, exist_ok=True)
        trust = f'root-certificates = "{ca_certificate}"' if ca_certificate else "insecure = true"
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
            f'address = "{self.control_address(addresses)}"\n{trust}\n'
        )


def _trust(ca_certificate: Path | None) -> tuple[str, ...]:
    return ("--root-certificates", str(ca_certificate)) if ca_certificate else ("--insecure",)
