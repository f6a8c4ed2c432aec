"""Stock `flower-supernode` processes among simulated ones."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from flwr.cli.build import build_fab_from_disk

from tests.harness.children import Child
from tests.harness.environment import SCRIPTS, free_port

_LOSS = re.compile(r".*ERROR.*")
_HERE = Path(__file__).parent
_NODE_ID = re.compile(r"SuperNode ID: (\d+)\n")
_START_SECONDS = 60.0


@cache
def fab() -> bytes:
    """The app that these SuperNodes answer by."""
    return bytes(build_fab_from_disk(_HERE / "answering"))


class StockSuperNode:
    """A stock SuperNode, which answers what the app asks; `within` runs it somewhere else."""

    def __init__(
        self,
        number: int,
        superlink: str,
        folder: Path,
        within: Callable[..., Sequence[str]] = lambda *command: command,
    ) -> None:
        self.number = number
        self.node_id = 0
        """Known once it is online."""
        home = folder / f"supernode-{number}"
        home.mkdir(parents=True, exist_ok=True)
        command = [
            str(SCRIPTS / "flower-supernode"),
            "--insecure",
            *("--superlink", superlink),
            *("--clientappio-api-address", f"127.0.0.1:{free_port()}"),
            *("--node-config", f"number={number}"),
        ]
        self._process = Child(
            within(*command),
            log_file=home / f"supernode-{number}.log",
            environment={"FLWR_HOME": str(home), "PYTHONPATH": str(_HERE.parents[1])},
        )

    async def until_online(self) -> None:
        """Wait until it was let in."""
        found = await asyncio.to_thread(self._process.wait_for_match, _NODE_ID, _START_SECONDS)
        self.node_id = int(found[1])

    @property
    def losses(self) -> list[str]:
        """What it has called an error: it says so of every message that it gives up."""
        return _LOSS.findall(self._process.output())

    @property
    def death(self) -> Exception | None:
        """Set when it has ended."""
        code = self._process.exit_code
        return None if code is None else ChildProcessError(f"exit code {code}")

    async def kill(self) -> None:
        """Kill it and all that it has started."""
        await asyncio.to_thread(self._process.kill_all)
