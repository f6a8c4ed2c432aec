"""A refusal in gRPC's form."""

import json

import grpc

from flower_nats.model.errors import ApiError

_FIRST_OWN_CODE = 10_000

_PLAIN_TEXT = "/flwr.proto.ServerAppIo/"
"""Clients of this service (flwr 1.30 to 1.33) read plain text."""


def status(error: ApiError) -> grpc.StatusCode:
    """Return the status of a refusal."""
    return grpc.StatusCode[error.spec.outcome.name]


def details(path: str, error: ApiError) -> str:
    """Return the details of a refusal in the form for the clients of this path.

    They are JSON with Flower's own code (flwr 1.33 `supercore/error/grpc.py`). They are plain text for
    the ServerAppIo service, and for refusals that have no code of Flower's.
    """
    text = error.spec.message
    if error.code < _FIRST_OWN_CODE and not path.startswith(_PLAIN_TEXT):
        return json.dumps(
            {
                "code": int(error.code),
                "public_message": text,
                "public_details": error.public_details,
            }
        )
    return f"{text} {error.public_details}" if error.public_details else text
