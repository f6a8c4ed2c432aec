"""Vendored files equal those of their packages, and have their licences beside them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FOLDERS = ["console/flower_nats_console/static/vendor", "tests/browser/vendor"]


@pytest.mark.parametrize("name", FOLDERS)
def test_each_file_has_the_hash_that_is_written_down(name: str) -> None:
    folder = ROOT / name
    written = dict(
        re.findall(r"^\| (\S+) \|.*\b([0-9a-f]{64}) \|$", (folder / "README.md").read_text(), re.M)
    )
    assets = [one for one in folder.iterdir() if one.suffix in {".js", ".css"}]

    assert {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in assets} == written
    assert {one.name.partition(".")[0] for one in assets} == {
        one.stem for one in folder.glob("*.LICENSE")
    }


def test_no_page_names_another_host() -> None:
    folder = ROOT / "console" / "flower_nats_console"
    ours = [*folder.glob("templates/*"), *folder.glob("static/*.*")]

    assert ours
    for file in ours:
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://[\w.]|//[a-z]+\.", text), file
