"""The meaning of an issuer's claims here: the name of an account, and its role."""

import re
from collections.abc import Mapping
from typing import Any

from flower_nats.model.account import BadAccountName, Role, check_account_name
from flower_nats.settings import OidcSettings

_OTHERS = re.compile(r"[^A-Za-z0-9._-]+")

_LONGEST = 56
"""Characters, with room for a number at the end."""


def name_from(claims: Mapping[str, Any], settings: OidcSettings) -> str:
    """Return the name for an account, as close to the claim as names allow."""
    for claim in (settings.name_claim, "preferred_username", "email", "sub"):
        name = _OTHERS.sub("-", str(_find(claims, claim) or "")).strip("._-")[:_LONGEST]
        try:
            check_account_name(name)
        except BadAccountName:
            continue
        return name
    return "account"


def role_from(claims: Mapping[str, Any], settings: OidcSettings) -> Role | None:
    """Return the role of an account by its groups; None if groups do not set roles."""
    if not settings.operator_group or not claims:
        return None
    groups = _find(claims, settings.groups_claim)
    named = groups.split() if isinstance(groups, str) else groups or []
    is_operator = isinstance(named, list) and settings.operator_group in named
    return Role.OPERATOR if is_operator else Role.USER


def _find(claims: Mapping[str, Any], path: str) -> Any:
    """Return a claim, or a nested one such as `realm_access.roles`."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return found
