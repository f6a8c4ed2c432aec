"""The certificate of the PostgreSQL server, which its driver does not show."""

import asyncio
import ssl
import struct
from contextlib import suppress

from flower_nats.store.connection import Database

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""The first message of a PostgreSQL client that wants TLS."""

_SECONDS = 2.0


async def server_certificate(database: Database) -> bytes | None:
    """Return the certificate (DER) of the server if our connections to it speak TLS, else None."""
    server = await database.encrypted_server()
    return None if server is None else await certificate_at(*server)


async def certificate_at(host: str, port: int) -> bytes | None:
    """Return the certificate (DER) of the PostgreSQL server there; None if it presents none."""
    # No data is sent on this connection, so the certificate need not be verified.
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    with suppress(OSError, TimeoutError, EOFError):
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(_SSL_REQUEST)
                if await reader.readexactly(1) != b"S":
                    return None
                await writer.start_tls(unverified, server_hostname=host)
                shown: bytes | None = writer.get_extra_info("ssl_object").getpeercert(True)
                return shown
            finally:
                writer.close()
    return None
