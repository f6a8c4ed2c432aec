"""Connection strings of PostgreSQL, checked before a connection."""

import psycopg
from psycopg.conninfo import conninfo_to_dict

from flower_nats.model.addresses import check_host

_PORTS = range(1, 65536)


def check_dsn(dsn: str) -> None:
    """Raise ValueError if `dsn` cannot work; the error's text never contains a part of it.

    Without this check, the pool would try until its time-out. An empty string, which means the
    system's defaults to the driver, is refused too.
    """
    if not dsn.strip():
        raise ValueError("it is empty")
    try:
        parts = conninfo_to_dict(dsn)
    except (psycopg.Error, UnicodeError, ValueError) as exc:
        raise ValueError("PostgreSQL's driver cannot read it") from exc
    hosts = str(parts.get("hostaddr") or parts.get("host") or "")
    for host in hosts.split(","):
        # Others are folders of sockets.
        if not host.startswith(("/", "@")):
            check_host(host)
    ports = str(parts.get("port", "")).split(",")
    if not all(port.isdecimal() and int(port) in _PORTS for port in ports if port):
        raise ValueError("a port is a number from 1 to 65535")
    # A host that is not given may be in PGHOST.
    if hosts and len(ports) > 1 and len(ports) != len(hosts.split(",")):
        raise ValueError("there are more ports than hosts")


def login_of(dsn: str) -> tuple[str, str]:
    """Return the user and the password in a connection string; empty if there are none."""
    parts = conninfo_to_dict(dsn)
    return str(parts.get("user") or ""), str(parts.get("password") or "")
