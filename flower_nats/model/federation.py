"""Federations: who is in them with which role, which SuperNodes are, and who is invited.

The name of the default one is what stock clients expect of a SuperLink without accounts (flwr 1.33 to
1.42 `supercore/constant.py`, NOOP_FEDERATION_ID). It is the federation of those without an account, and
of all SuperNodes without one. It is for deployments, or for simulations where the runtime is told so.
Others are created by accounts, for either.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from flower_nats.model.caller import NO_ACCOUNT_NAME

DEFAULT_FEDERATION = f"@{NO_ACCOUNT_NAME}/default"

LONGEST_NAME = 32
"""Characters of a federation's name without its account (flwr 1.42 `supercore/constant.py`)."""


class MemberRole(StrEnum):
    """What an account may do in a federation. Each may do what those after it may, and more."""

    OWNER = "owner"
    """The account that owns it: may archive it, and cannot be removed."""

    ADMIN = "admin"
    """May invite and remove accounts, remove SuperNodes, stop runs, and configure simulations."""

    MEMBER = "member"
    """May start runs, and add SuperNodes of its own. So is who has accepted an invitation."""

    VIEWER = "viewer"
    """May see all that is in it."""


@dataclass(frozen=True)
class Federation:
    """A federation as the database knows it."""

    name: str
    """`@account/name`."""
    description: str
    simulation_config: bytes
    """What was said about its simulations: a `SimulationConfig` of the wire, without the defaults."""
    archived: bool
    """Whether it takes no more runs."""
    simulation: bool
    """Whether it was created for simulations."""

    @property
    def is_default(self) -> bool:
        """Whether it is that of those without an account."""
        return self.name == DEFAULT_FEDERATION


@dataclass(frozen=True)
class Member:
    """An account in a federation."""

    account_id: str
    account_name: str
    role: MemberRole


@dataclass(frozen=True)
class Invitation:
    """An account was asked into a federation."""

    federation: str
    inviter_id: str
    inviter_name: str
    invitee_id: str
    invitee_name: str
    status: str
    """`pending`, `accepted`, `rejected`, `revoked`, or `expired`, as its federation was archived."""
    created_at: datetime
    changed_at: datetime | None
    """When it ceased to be pending."""
