"""The table of a matrix: the versions, the wire of each client, and the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from harness.flower import GRPC, HTTP, control_wire, fleet_wire, runtime_wire
from tests.matrix.line import Cast

BEGIN, END = "<!-- matrix -->", "<!-- end of matrix -->"
_HEAD = ("flwr", "SuperNodes", "SuperExec, ServerApp", "CLI", "run", "result")


@dataclass(frozen=True)
class Result:
    """The result of a line."""

    cast: Cast
    seconds: float
    """The duration of the run; without meaning if the line has failed."""

    failure: str = ""


def table(results: Iterable[Result]) -> str:
    """Return the lines as a table in Markdown."""
    rows = [_HEAD, ("---",) * len(_HEAD), *map(_row, results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write(page: Path, text: str) -> None:
    """Put a text between the markers of a page."""
    before, after = split(page)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def split(page: Path) -> tuple[str, str]:
    """Return what stands before and after the table of a page.

    Raises ValueError if the page has no place for a table, OSError if it cannot be read.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no {BEGIN} and {END} to write between")
    return before, after


def _row(result: Result) -> Sequence[str]:
    cast = result.cast
    mixed = len(cast.versions) > 1
    return (
        "mixed" if mixed else cast.cli,
        _by_wire(cast.supernodes, fleet_wire, mixed),
        _by_wire([cast.superexec], runtime_wire, mixed),
        _by_wire([cast.cli], control_wire, mixed),
        "" if result.failure else f"{result.seconds:.1f} s",
        "**failed**" if result.failure else "passed",
    )


def _by_wire(versions: Iterable[str], wire_of: Callable[[Version], str], mixed: bool) -> str:
    """Return the wires of versions, with their versions in a mixed line."""
    wires: dict[str, list[str]] = {GRPC: [], HTTP: []}
    for version in versions:
        wires[wire_of(Version(version))].append(version)
    return "; ".join(
        f"{wire}: {', '.join(found)}" if mixed else wire for wire, found in wires.items() if found
    )
