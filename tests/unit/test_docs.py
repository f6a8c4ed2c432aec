"""The pages in docs/: lines that fit a screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])

LONGEST_LINE = 120
"""Characters of a line of prose."""

LONGEST_ROW = 300
"""Characters of a row of a table. Longer texts are sentences below the table."""


def lines_outside_code(page: Path) -> Iterator[tuple[int, str]]:
    in_code = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code:
            yield number, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_and_rows_fit_a_screen(page: Path) -> None:
    too_long = [
        f"{number}: {len(line)} characters"
        for number, line in lines_outside_code(page)
        if len(line) > (LONGEST_ROW if line.startswith("|") else LONGEST_LINE)
    ]
    assert not too_long
