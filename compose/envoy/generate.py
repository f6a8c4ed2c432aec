"""Write the balancer's configuration beside this script: for clear text, and for TLS.

Run by hand, `python compose/envoy/generate.py`, after a change to flower_nats.embedded.envoy; the
results are committed, so that a stack needs no Python on its host. A test compares.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from flower_nats.embedded.envoy import Api, envoy_config
from flower_nats.settings import TlsFiles

PORTS = {"http": 8000, "serverappio": 9091, "fleet": 9092, "control": 9093}
SECRETS = Path("/run/secrets")
AUTHORITY = SECRETS / "ca.crt"
CERTIFICATE = TlsFiles(SECRETS / "server.pem", SECRETS / "server.pem.key", AUTHORITY)


def apis(tls: TlsFiles | None, gateways_ca: Path | None) -> Sequence[Api]:
    """Return the ports; all containers of the service `gateway` answer to its name."""
    return [
        Api(name, f"0.0.0.0:{port}", [f"gateway:{port}"], tls, gateways_ca)
        for name, port in PORTS.items()
    ]


def main() -> None:
    """Write both files."""
    variants = {"envoy.json": apis(None, None), "envoy.tls.json": apis(CERTIFICATE, AUTHORITY)}
    for name, variant in variants.items():
        text = json.dumps(envoy_config(variant), indent=2) + "\n"
        Path(__file__).with_name(name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
