"""Stock `flower-supernode` processes among simulated ones."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from flwr.cli.build import build_fab_from_disk

from harness.channels import WireName
from harness.children import PATIENCE, Child
from harness.flower import Flower
from harness.flower_environments import LAST_OVER_GRPC, Environment, environment, installed

_LOSS = re.compile(r".*ERROR.*")
_HERE = Path(__file__).parent
_NODE_ID = re.compile(r"SuperNode ID: (\d+)\n")

_ENVIRONMENTS: Mapping[WireName, Callable[[], Environment]] = {
    "http": installed,
    "grpc": partial(environment, LAST_OVER_GRPC),
}
"""The environment of a SuperNode, by the wire over which it calls."""


@cache
def fab() -> bytes:
    """The FAB by which these SuperNodes answer."""
    return bytes(build_fab_from_disk(_HERE / "answering"))


class StockSuperNode:
    """A stock SuperNode that answers the app's instructions; `within` wraps its command."""

    def __init__(
        self,
        number: int,
        wire: WireName,
        superlink: str,
        folder: Path,
        within: Callable[..., Sequence[str]] = lambda *command: command,
    ) -> None:
        self.number = number
        self.node_id = 0
        """0 until the SuperNode is online."""
        home = folder / f"supernode-{number}"
        home.mkdir(parents=True, exist_ok=True)
        flower = Flower(_ENVIRONMENTS[wire]())
        command = flower.supernode(superlink, f"number={number}")
        variables = flower.environment.variables(home)
        self._process = Child(
            within(*command),
            log_file=home / f"supernode-{number}.log",
            environment={**variables, "PYTHONPATH": str(_HERE.parent)},
        )

    async def until_online(self) -> None:
        """Wait until the SuperNode is online."""
        found = await asyncio.to_thread(self._process.wait_for_match, _NODE_ID, PATIENCE)
        self.node_id = int(found[1])

    @property
    def losses(self) -> list[str]:
        """The errors in its log: it logs an error for every message that it gives up."""
        return _LOSS.findall(self._process.output())

    @property
    def death(self) -> Exception | None:
        """Set when the process has ended."""
        code = self._process.exit_code
        return None if code is None else ChildProcessError(f"exit code {code}")

    async def kill(self) -> None:
        """Kill the process and all processes that it has started."""
        await asyncio.to_thread(self._process.kill_all)
