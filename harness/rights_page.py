"""The tables of rights in docs/security.md: `python -m harness.rights_page` updates them."""

from __future__ import annotations

from pathlib import Path

from flower_nats.model.errors import CATALOGUE, ErrorCode
from flower_nats.superlink.accounts.rights import RIGHTS, About, Level, Right, Unnamed, refusal
from harness import agent_rights

PAGE = Path(__file__).parents[1] / "docs" / "security.md"

COLUMNS = {
    Level.ANYBODY: "no login",
    Level.ACCOUNT: "not in it",
    Level.VIEWER: "viewer",
    Level.MEMBER: "member",
    Level.ADMIN: "admin",
    Level.OWNER: "owner",
    Level.OPERATOR: "operator",
}


def table() -> str:
    """Return a line for each call of the Control API, as Markdown."""
    lines = [
        f"| call | about | {' | '.join(COLUMNS.values())} |",
        f"|---|---|{'---|' * len(COLUMNS)}",
    ]
    for name, right in RIGHTS.items():
        cells = [_cell(right, level) for level in COLUMNS]
        lines.append(f"| {name} | {_about(right)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _about(right: Right) -> str:
    if right.takes is Level.ANYBODY:
        return "no account yet"
    return right.about.value + (", or all seen" if right.unnamed is Unnamed.ALL else "")


def _cell(right: Right, level: Level) -> str:
    own, others = refusal(right, level), refusal(right, level, is_own=False)
    if own is None:
        if others is None or right.about is About.ITSELF:
            return "yes"
        return f"own ({_code(others)})"
    return _code(own)


def _code(code: ErrorCode) -> str:
    return f"{code.value}: {CATALOGUE[code].http_status}"


def page_with_tables(page: str) -> str:
    """Return the page with new tables."""
    for name, lines in {"rights": table(), "agent rights": agent_rights.table()}.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, rest = page.split(begin)
        page = f"{before}{begin}\n{lines}\n{end}{rest.split(end)[1]}"
    return page


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text("utf-8")), "utf-8")
