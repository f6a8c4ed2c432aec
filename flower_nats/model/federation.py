"""Federations: the one of everything that connects, and those that are simulated.

The name of the first is what stock clients expect of a SuperLink without accounts (flwr 1.33 to 1.42
`supercore/constant.py`, NOOP_FEDERATION_ID): every account and every node is in it. It is for
deployments, or for simulations where the runtime is told so. Others are created by users, and are for
simulations.
"""

from dataclasses import dataclass

from flower_nats.model.caller import NO_ACCOUNT_NAME

DEFAULT_FEDERATION = f"@{NO_ACCOUNT_NAME}/default"

LONGEST_NAME = 32
"""Characters of a federation's name without its account (flwr 1.42 `supercore/constant.py`)."""


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

    @property
    def is_default(self) -> bool:
        """Whether it is that of everything that connects."""
        return self.name == DEFAULT_FEDERATION
