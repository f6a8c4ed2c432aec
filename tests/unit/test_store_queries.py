"""Named SQL: the loader works, and code and files name the same queries."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flower_nats.store.queries import InvalidSqlFile, load, parse

STORE = Path(__file__).parents[2] / "flower_nats" / "store"
NOUNS = sorted(file.stem for file in (STORE / "sql").glob("*.sql"))


def test_queries_are_found_by_name() -> None:
    queries = parse("-- one: The first.\nSELECT 1;\n\n-- two: The second.\nSELECT\n  2;\n")

    assert dict(queries) == {"one": "SELECT 1;", "two": "SELECT\n  2;"}


def test_a_comment_within_a_query_belongs_to_it() -> None:
    assert "-- a remark" in parse("-- one: The first.\nSELECT 1\n-- a remark\n;")["one"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT 1;", "before the first name"),
        ("-- one: A.\nSELECT 1;\n-- one: B.\nSELECT 2;", "two queries are called one"),
        ("-- one: A.\n\n-- two: B.\nSELECT 2;", "no SQL under one"),
        ("-- one:\nSELECT 1;", "before the first name"),
    ],
)
def test_a_file_that_breaks_the_rules_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidSqlFile, match=said):
        parse(text)


@pytest.mark.parametrize("noun", NOUNS)
def test_code_and_file_name_the_same_queries(noun: str) -> None:
    loaders = [file for file in STORE.glob("*.py") if f'load("{noun}")' in file.read_text()]
    used = {
        name
        for file in loaders
        for name in re.findall(r'(?:_SQL|load\("database"\))\["(\w+)"\]', file.read_text())
    }

    assert used == set(load(noun))


def test_only_the_store_knows_the_driver() -> None:
    package = STORE.parent
    importers = {
        file.relative_to(package).parts[0]
        for file in package.rglob("*.py")
        if re.search(r"^(from|import) psycopg", file.read_text(), re.MULTILINE)
    }

    assert importers == {"store"}
