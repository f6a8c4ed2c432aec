"""Pages that several browsers look at: each is made and compressed once for all of them."""

import gzip
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from flower_nats_console.superlinks import Answer

_MOST_KEPT = 32
"""Pages that are kept to be given again, of at most some 200 kB each."""

_LEVEL = 5
"""Of compression: higher ones take longer and gain little."""


class KeptPages:
    """Gives a page again as long as the answers that it is made of are the same ones.

    Answers are shared by those alone who see the same (`Superlinks.ask`), and so are pages.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[tuple[Answer, ...], Response, bytes]] = {}

    def page(
        self, request: Request, answers: tuple[Answer, ...], make: Callable[[], Response]
    ) -> Response:
        """Return the page of a URL; `make` makes it of `answers`, and it is always a success."""
        url = str(request.url)
        kept = self._kept.get(url)
        if kept is None or not _same(kept[0], answers):
            made = make()
            while len(self._kept) >= _MOST_KEPT:
                self._kept.pop(next(iter(self._kept)))
            kept = answers, made, gzip.compress(bytes(made.body), _LEVEL)
            self._kept[url] = kept
        _, made, packed = kept
        headers = {"vary": "Accept-Encoding"}
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(made.body, media_type=made.media_type, headers=headers)
        headers["content-encoding"] = "gzip"
        return Response(packed, media_type=made.media_type, headers=headers)


def _same(some: tuple[Answer, ...], others: tuple[Answer, ...]) -> bool:
    pairs = zip(some, others, strict=False)
    return len(some) == len(others) and all(one is other for one, other in pairs)
