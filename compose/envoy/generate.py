"""Write the configuration of both balancers beside this script: for clear text, and for TLS.

Run by hand, `python compose/envoy/generate.py`, after a change to flower_nats.embedded.envoy; the
results are committed, so that a stack needs no Python on its host. A test checks them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flower_nats.embedded.envoy import (
    Api,
    certificate_files,
    certificate_resource,
    envoy_config,
)
from flower_nats.settings import TlsFiles

PORTS = {"http": 8000, "serverappio": 9091, "fleet": 9092, "control": 9093}
"""The ports of gateways, and of the balancers."""

BALANCERS = {"envoy": ("fleet", "control"), "envoy.apps": ("serverappio",)}
"""The APIs of each balancer, by the name of its file: one API on each port, over both wires.

Apps reach only the second balancer.
"""

AUTHORITY = Path("/run/secrets/ca.crt")
TLS = Path("/run/tls")
CERTIFICATE = TlsFiles(TLS / "server.pem", TLS / "server.pem.key", AUTHORITY)
MOUNTED = Path("/etc/envoy")
"""The path of this folder in the balancer's container."""


def apis(served: Sequence[str], tls: TlsFiles | None, gateways_ca: Path | None) -> Sequence[Api]:
    """Return the ports; all containers of the service `gateway` answer to its name."""
    # The port of all APIs is open to the container itself alone, for its health check. Its route to
    # gateways serves HTTP on the other ports, too.
    listen = {"http": "127.0.0.1", **dict.fromkeys(served, "0.0.0.0")}
    return [
        Api(name, f"{host}:{PORTS[name]}", [f"gateway:{PORTS[name]}"], tls, gateways_ca)
        for name, host in listen.items()
    ]


def certificate() -> Mapping[str, Any]:
    """Return the resource of a certificate's files, which Envoy reads again after a replacement."""
    chain, key = ({"filename": str(file)} for file in (CERTIFICATE.certificate, CERTIFICATE.key))
    return certificate_resource(chain, key, watched_directory={"path": str(TLS)})


def main() -> None:
    """Write all files."""
    contents: dict[str, Mapping[str, Any]] = {}
    for name, served in BALANCERS.items():
        encrypted = apis(served, CERTIFICATE, AUTHORITY)
        (certificate_file,) = certificate_files(encrypted, MOUNTED).values()
        contents[certificate_file.name] = certificate()
        contents[f"{name}.tls.json"] = envoy_config(encrypted, MOUNTED)
        contents[f"{name}.json"] = envoy_config(apis(served, None, None), MOUNTED)
    for name, content in contents.items():
        text = json.dumps(content, indent=2) + "\n"
        Path(__file__).with_name(name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
