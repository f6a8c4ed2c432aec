"""Where processes of tests and benchmarks live: programs, ports, environment."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from flower_nats.embedded.ports import free_ports

# Where the console scripts of this environment are: stock clients start each other by name.
SCRIPTS = Path(sys.executable).parent


def free_port() -> int:
    """Return a port of the loopback interface that no outgoing connection takes between restarts."""
    return free_ports(1)[0]


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a stock process: no telemetry, no update check, no installing."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("FLWR_")}
    return inherited | {
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # Wide enough that the tables of the stock CLI do not break the values in them.
        "COLUMNS": "200",
        "NO_COLOR": "1",
        **extra,
    }


def accepts_connections(address: str) -> bool:
    """Whether somebody listens on `address` (`host:port`)."""
    host, port = address.rsplit(":", maxsplit=1)
    try:
        with socket.create_connection((host, int(port)), timeout=1.0):
            return True
    except OSError:
        return False


def outer_host() -> str | None:
    """Return an address of this machine that is not of the loopback interface; None without one.

    Who connects to it is to a server as somebody on another machine.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: the system says which address it would send from.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        host: str = probe.getsockname()[0]
        return host
