"""A refusal in HTTP's words (flwr 1.42 `supercore/error/http.py`)."""

import json
from dataclasses import dataclass
from http import HTTPStatus

from flower_nats.model.errors import ApiError

_FIRST_OWN_CODE = 10_000

JSON = b"application/json"

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class Answer:
    """A whole answer that is no protobuf message."""

    status: int
    body: bytes
    headers: Headers = ()
    kind: bytes = JSON

    def last_words(self) -> bytes:
        """Return it with its head, for a connection that ends with it."""
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
            f"content-type: {JSON.decode()}\r\ncontent-length: {len(self.body)}\r\n"
            "connection: close\r\n\r\n"
        )
        return head.encode() + self.body


def refusal(error: ApiError) -> Answer:
    """Return what a client gets to read.

    Flower's own codes travel with their number. Clients print `detail`, so that a refusal without a
    number says all in it.
    """
    spec = error.spec
    content: dict[str, object] = {"detail": spec.message}
    if error.code < _FIRST_OWN_CODE:
        content["code"] = int(error.code)
        if error.public_details is not None:
            content["extra"] = error.public_details
    elif error.public_details:
        content["detail"] = f"{spec.message} {error.public_details}"
    headers = tuple((name.encode(), value.encode()) for name, value in spec.http_headers.items())
    return Answer(spec.http_status, json.dumps(content).encode(), headers)


def plain(status: int, detail: str, *headers: tuple[bytes, bytes]) -> Answer:
    """Return a refusal of what is no call of an API at all."""
    return Answer(status, json.dumps({"detail": detail}).encode(), headers)
