"""A refusal in HTTP's form (flwr 1.42 `supercore/error/http.py`)."""

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
        """Return the answer with its head, for a connection that ends after it."""
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
            f"content-type: {JSON.decode()}\r\ncontent-length: {len(self.body)}\r\n"
            "connection: close\r\n\r\n"
        )
        return head.encode() + self.body


def refusal(error: ApiError) -> Answer:
    """Return the answer that a client gets.

    The answer has the number of Flower's own codes. Clients print `detail`, so a refusal without a
    number has all its text there.
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
    """Return the refusal of a request that is no call of an API."""
    return Answer(status, json.dumps({"detail": detail}).encode(), headers)
