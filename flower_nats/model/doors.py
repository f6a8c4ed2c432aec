"""Which APIs the HTTP port keeps from other machines, and what those are told that come for them.

The port carries all APIs. SuperNodes must reach it from everywhere. Anyone who reaches Control can
run code on every host of the federation, and anyone who reaches the Runtime API without a secret
can take runs. So the address that a client has connected to decides: nobody comes to a loopback
address from elsewhere.
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
"""By API: what a client from elsewhere is told."""


def not_for_others(api: str) -> ApiError:
    """Return the refusal of a call of an API that is not for its caller's machine."""
    return ApiError(ErrorCode.FORBIDDEN_ACTION, f"{api} is not for other machines", REMEDIES[api])


def wrong_port(api: str) -> str:
    """Return what a client of another API is told at a port that serves one API alone."""
    return (
        f"This port serves the {api} API of Flower alone. Remedy: connect to the port of the other "
        "API, or to the HTTP port of this runtime (8000 by default)."
    )
