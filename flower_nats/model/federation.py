"""Federations, with their members and roles, their SuperNodes and their invitations.

The default federation has the name that stock clients expect of a SuperLink without accounts (flwr
1.33 to 1.42 `supercore/constant.py`, NOOP_FEDERATION_ID). It is the federation of callers and
SuperNodes without an account. It is for deployments, or for simulations if the runtime is
configured so. Accounts create other federations, for either.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from flower_nats.model.caller import NO_ACCOUNT_NAME

DEFAULT_FEDERATION = f"@{NO_ACCOUNT_NAME}/default"

LONGEST_NAME = 32
"""Characters of a federation's name without its account (flwr 1.42 `supercore/constant.py`)."""


class MemberRole(StrEnum):
    """What an account may do in a federation. Each role includes the rights of those after it."""

    OWNER = "owner"
    """The account that owns the federation. It may archive it, and cannot be removed."""

    ADMIN = "admin"
    """May invite and remove accounts, remove SuperNodes, stop runs, and configure simulations."""

    MEMBER = "member"
    """May start runs, and add SuperNodes of its own. Invited accounts get this role."""

    VIEWER = "viewer"
    """May see everything in the federation."""


@dataclass(frozen=True)
class Federation:
    """A federation as the database knows it."""

    name: str
    """`@account/name`."""
    description: str
    simulation_config: bytes
    """How it simulates: a `SimulationConfig` of the wire, without the defaults."""
    archived: bool
    """Whether it takes no more runs."""
    simulation: bool
    """Whether it was created for simulations."""

    @property
    def is_default(self) -> bool:
        """Whether it is the default federation, of callers without an account."""
        return self.name == DEFAULT_FEDERATION


@dataclass(frozen=True)
class Member:
    """An account in a federation."""

    account_id: str
    account_name: str
    role: MemberRole


@dataclass(frozen=True)
class Invitation:
    """An invitation of an account into a federation."""

    federation: str
    inviter_id: str
    inviter_name: str
    invitee_id: str
    invitee_name: str
    status: str
    """`pending`, `accepted`, `rejected`, `revoked`, or `expired` because its federation was
    archived."""
    created_at: datetime
    changed_at: datetime | None
    """When it ceased to be pending."""
