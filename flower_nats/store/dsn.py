"""Connection strings of PostgreSQL, checked before anybody connects."""

import psycopg
from psycopg.conninfo import conninfo_to_dict

_PORTS = range(1, 65536)


def check_dsn(dsn: str) -> None:
    """Raise ValueError if no connection can come of `dsn`; the text never holds a part of it.

    Else the pool would try for as long as it is allowed to. An empty string, which the driver would
    take for the system's defaults, is refused too.
    """
    if not dsn.strip():
        raise ValueError("it is empty")
    try:
        parts = conninfo_to_dict(dsn)
    except (psycopg.Error, UnicodeError, ValueError) as exc:
        raise ValueError("PostgreSQL's driver cannot read it") from exc
    hosts = str(parts.get("host", "")).split(",")
    ports = [port for port in str(parts.get("port", "")).split(",") if port]
    if not all(port.isdecimal() and int(port) in _PORTS for port in ports):
        raise ValueError("a port is a number from 1 to 65535")
    if len(ports) > 1 and len(ports) != len(hosts):
        raise ValueError("there are more ports than hosts")
