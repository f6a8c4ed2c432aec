"""Passwords of accounts, kept as argon2id hashes (RFC 9106)."""

from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from flower_nats.model.visible import is_utf8

SHORTEST = 10
"""Characters (NIST SP 800-63B asks for at least 8). All characters of one line are allowed."""

LONGEST = 512
"""Characters: this limits the work that strangers can cause."""

# The second recommendation of RFC 9106: 64 MiB for 50 to 100 ms of one core.
_HASHER = PasswordHasher()


class BadPassword(ValueError):
    """A password cannot be used."""


def hash_password(password: str) -> str:
    """Return the hash of a password, which takes about 0.1 s. Raises BadPassword."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise BadPassword(f"A password has from {SHORTEST} to {LONGEST} characters.")
    if "\r" in password or "\n" in password or not is_utf8(password):
        raise BadPassword("A password is one line of UTF-8 text. Other text fits no login page.")
    return _HASHER.hash(password)


@cache
def _hash_of_nobody() -> str:
    return _HASHER.hash("nobody has this password")


def verify_password(password_hash: str | None, password: str) -> bool:
    """Return whether a password has this hash; takes about 0.1 s, also without a hash."""
    try:
        _HASHER.verify(password_hash or _hash_of_nobody(), password[: LONGEST + 1])
    except (VerificationError, InvalidHashError):
        return False
    return password_hash is not None
