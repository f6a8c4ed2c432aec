"""Ask the package index which of the locked packages have known vulnerabilities: ``make audit``.

Exit code 0: none has. 1: some have, which are named. 2: not all could be asked about.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
FILES = ("dev.txt", "build.txt")
"""Together they hold every package; the other files have parts of them."""

FOUND, NOT_ASKED = 1, 2

_PATIENCE = 600.0
"""Seconds for all questions: an index that hangs takes some 15 s for each of a hundred packages."""


def main() -> int:
    """Ask about all files; say what came of it."""
    found, not_asked, number = [], [], 0
    for name in FILES:
        report = _report(FOLDER / name)
        if report is None:
            not_asked.append(f"locks/{name}: the package index could not be asked; see above")
            continue
        number += len(report)
        found += _vulnerabilities(report)
        not_asked += [f"{one['name']}: {one['skip_reason']}" for one in report if _is_skipped(one)]
    for line in [*found, *not_asked]:
        print(line)
    if found:
        print(
            f"{len(found)} known vulnerabilities. Remedy: make lock LOCK='--upgrade-package NAME'"
        )
    if not_asked:
        print(
            "The audit is NOT complete: of these nothing is known. Remedy: see that this machine "
            "reaches the package index itself; a mirror may lack what it tells of vulnerabilities."
        )
    if found or not_asked:
        return FOUND if found else NOT_ASKED
    print(f"No known vulnerability in {number} packages.")
    return 0


def _report(lock: Path) -> Sequence[Mapping[str, Any]] | None:
    """Return what pip-audit says of each package; None if it came to no end."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "report.json"
        command = [
            *(str(Path(sys.executable).with_name("pip-audit")), "--requirement", str(lock)),
            *("--require-hashes", "--disable-pip", "--progress-spinner", "off"),
            *("--format", "json", "--output", str(output)),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            print(f"pip-audit took more than {_PATIENCE:.0f} s.", file=sys.stderr)
            return None
        if not output.exists():
            # The last line says what; a traceback stands before it.
            print(*done.stderr.strip().splitlines()[-1:], sep="\n", file=sys.stderr)
            return None
        dependencies: Sequence[Mapping[str, Any]] = json.loads(output.read_text())["dependencies"]
        return dependencies


def _is_skipped(package: Mapping[str, Any]) -> bool:
    return "skip_reason" in package


def _vulnerabilities(report: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for package in report:
        for one in package.get("vulns", []):
            mended = ", ".join(one["fix_versions"]) or "no version yet"
            yield f"{package['name']} {package['version']}: {one['id']}, mended in {mended}"


if __name__ == "__main__":
    sys.exit(main())
