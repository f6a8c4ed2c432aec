"""Tables in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Row = Sequence[str]


def table(head: Row, rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a table, with columns as wide as their content."""
    yield from Table(head).more(rows, even_if_empty=True)


class Table:
    """A table that gets its rows in parts. Columns never get narrower from one part to the next."""

    def __init__(self, head: Row) -> None:
        self._head = head
        self._widths = [len(cell) for cell in head]
        self._begun = False

    def more(self, rows: Sequence[Row], *, even_if_empty: bool = False) -> Iterator[str]:
        """Yield the lines of more rows, after the head if they are the first."""
        for row in rows:
            pairs = zip(self._widths, row, strict=True)
            self._widths = [max(width, len(cell)) for width, cell in pairs]
        if not self._begun and (rows or even_if_empty):
            self._begun = True
            yield self._line(self._head)
        yield from map(self._line, rows)

    def _line(self, row: Row) -> str:
        cells = (cell.ljust(width) for cell, width in zip(row, self._widths, strict=True))
        return f"  {'  '.join(cells)}".rstrip()
