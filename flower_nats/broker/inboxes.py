"""Where answers come in: each user of NATS has inboxes of its own, which the others cannot hear."""

import re
from collections.abc import Sequence

from flower_nats.broker.urls import user_of

_ALL = "_INBOX"

_OF_OTHERS = "_R_"
"""What nats-server writes in the place of the inbox of a caller from another account, for a call."""

ANSWERS = (f"{_ALL}.>", f"{_OF_OTHERS}.>")
"""All to which answers may go: they make nobody do anything there."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
"""What may stand between two dots of a subject."""


def inboxes_of(user: str) -> str:
    """Return what the inboxes of a user begin with, without the dot that follows."""
    return f"{_ALL}.{user}" if _TOKEN.fullmatch(user) else _ALL


def inboxes_for(urls: Sequence[str]) -> str:
    """Return the inbox prefix, the same for every process with the login of these URLs."""
    return inboxes_of(user_of(urls))


def is_inbox(subject: str) -> bool:
    """Whether an answer may go to this subject (`ANSWERS`)."""
    return subject.startswith((f"{_ALL}.", f"{_OF_OTHERS}."))
