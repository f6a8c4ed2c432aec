"""A connection is added to the Flower config, and nothing is lost."""

from __future__ import annotations

import tomllib

import pytest

from flower_nats_cli.flower_config import CannotEdit, with_connection

LINES = '[superlink.ours]\naddress = "127.0.0.1:8000"\ninsecure = true'
OURS = {"address": "127.0.0.1:8000", "insecure": True}
FLWRS = """[superlink]
default = "local"  # mine

[superlink.supergrid]
address = "api.flower.ai"

[superlink.local]
address = ":local:"
"""
"""The config that flwr 1.42 writes."""


@pytest.mark.parametrize(
    "before", ["", FLWRS, FLWRS.rstrip(), "# nothing yet\n", "[other]\na = 1\n"]
)
@pytest.mark.parametrize("as_default", [False, True])
def test_it_is_added_and_all_else_means_what_it_meant(before: str, as_default: bool) -> None:
    after = with_connection(before, "ours", LINES, as_default=as_default)

    expected = tomllib.loads(before)
    expected["superlink"] = {**expected.get("superlink", {}), "ours": OURS}
    if as_default:
        expected["superlink"]["default"] = "ours"
    assert tomllib.loads(after) == expected
    assert with_connection(after, "ours", LINES, as_default=as_default) == after
    assert as_default or before.strip() in after


def test_an_older_one_of_the_name_is_replaced_where_it_stands() -> None:
    before = FLWRS.replace(
        "[superlink.local]", '[superlink.ours]\naddress = "old:1"\n\n[superlink.local]'
    )

    after = with_connection(before, "ours", LINES, as_default=False)

    assert tomllib.loads(after)["superlink"]["ours"] == OURS
    assert "old:1" not in after
    assert after.index("superlink.ours") < after.index("superlink.local")


@pytest.mark.parametrize(
    "before",
    [
        "[superlink\n",
        "[superlink]\n[superlink]\n",
        'superlink = {local = {address = ":local:"}}\n',
        'superlink = "text"\n',
        '[superlink]\nours.address = "old:1"\n',
    ],
)
def test_what_cannot_be_added_to_safely_is_left_alone(before: str) -> None:
    with pytest.raises(CannotEdit):
        with_connection(before, "ours", LINES, as_default=False)
