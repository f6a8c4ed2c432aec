"""Which APIs the HTTP port keeps from other machines, and how it refuses their calls.

The port carries all APIs, and SuperNodes must reach it from everywhere. Anyone who reaches Control
can run code on every host of the federation, and anyone who reaches the Runtime API without a
secret can take runs. So the destination address of a connection decides: other machines cannot
connect to a loopback address.
"""

from collections.abc import Mapping

from flower_nats.model.errors import ApiError, ErrorCode

REMEDIES: Mapping[str, str] = {
    "Control": (
        "Control is for the machine of the gateway alone: anyone who reaches Control can run "
        "code on every host. Remedy: on that machine, connect to 127.0.0.1. From another "
        "machine, connect through `ssh -L 8000:127.0.0.1:8000 HOST`. Or start the gateway with "
        "--control-api-address or --http-control."
    ),
    "Runtime": (
        "The Runtime API is for the machine of the gateway alone, because this gateway has no "
        "TLS or no secret for SuperExecs. Remedy: on that machine, connect to 127.0.0.1. Or "
        "start the gateway with certificates and --superexec-auth-secret-file, or with "
        "--insecure-appio."
    ),
}
"""The refusal for a client from another machine, by API."""


def not_for_others(api: str) -> ApiError:
    """Return the refusal of a call to an API that is not for the caller's machine."""
    return ApiError(ErrorCode.FORBIDDEN_ACTION, f"{api} is not for other machines", REMEDIES[api])


def wrong_port(api: str) -> str:
    """Return the refusal for a client of another API at a port that serves only one API."""
    return (
        f"This port serves the {api} API of Flower alone. Remedy: connect to the port of the other "
        "API, or to the HTTP port of this runtime (8000 by default)."
    )
