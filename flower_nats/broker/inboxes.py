"""Inboxes for answers: each user of NATS has inboxes of its own, which other users cannot hear."""

import re
from collections.abc import Sequence

from flower_nats.broker.urls import user_of

_ALL = "_INBOX"

_OF_OTHERS = "_R_"
"""The subject by which nats-server replaces, for a call, the inbox of a caller from another
account."""

ANSWERS = (f"{_ALL}.>", f"{_OF_OTHERS}.>")
"""All subjects to which answers may go. A message there has no other effect."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
"""A part of a subject between two dots."""


def inboxes_of(user: str) -> str:
    """Return the prefix of a user's inboxes, without the dot that follows."""
    return f"{_ALL}.{user}" if _TOKEN.fullmatch(user) else _ALL


def inboxes_for(urls: Sequence[str]) -> str:
    """Return the inbox prefix of every process that logs in with these URLs."""
    return inboxes_of(user_of(urls))


def is_inbox(subject: str) -> bool:
    """Whether an answer may go to this subject (`ANSWERS`)."""
    return subject.startswith((f"{_ALL}.", f"{_OF_OTHERS}."))
