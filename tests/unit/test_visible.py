"""Texts of strangers do no harm to the terminals that show them."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_nats.model.long_texts import LONGEST_TEXT, cut_middle
from flower_nats.model.visible import is_visible_name, visible_lines, visible_name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "späße 😀\n",
        "\x1b[92mINFO\x1b[0m :      done\n",
        "50%\r100%\r\n",
        "a\tb",
        "\x1b[m",
    ],
)
def test_logs_are_shown_as_they_are(text: str) -> None:
    assert visible_lines(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x1b]52;c;cm0=\x1b\\", "\\x1b]52;c;cm0=\\x1b\\"),
        ("\x1b[31mred\x1b[6n", "\x1b[31mred\\x1b[6n"),
        ("\x9b2J", "\\x9b2J"),
        ("a\x08b\x7f", "a\\x08b\\x7f"),
        ("\x1b", "\\x1b"),
    ],
)
def test_control_sequences_in_logs_are_shown(text: str, shown: str) -> None:
    assert visible_lines(text) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("späße", "späße"),
        ("a\nb", "a\\x0ab"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("exe\u202etxt", "exe\\u202etxt"),
        ("a\u2028b", "a\\u2028b"),
    ],
)
def test_a_name_is_one_line_without_control_characters(name: str, shown: str) -> None:
    assert visible_name(name) == shown
    assert is_visible_name(name) is (name == shown)


@given(st.text())
def test_nothing_that_a_terminal_acts_on_is_left(text: str) -> None:
    without_colours = re.sub(r"\x1b\[[0-9;:]*m", "", visible_lines(text))
    assert re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", without_colours) is None
    assert is_visible_name(visible_name(text))


def test_a_long_text_does_not_take_long() -> None:
    hostile = "\x1b\x07" * 4_000_000

    began = time.process_time()
    assert visible_lines(hostile).startswith("\\x1b\\x07")
    assert time.process_time() - began < 5


@pytest.mark.parametrize("text", ["", "short", "x" * LONGEST_TEXT, "ä" * (LONGEST_TEXT // 2)])
def test_a_text_up_to_the_limit_stays_whole(text: str) -> None:
    assert cut_middle(text) == text


@given(st.text(alphabet="xä€😀", min_size=1, max_size=7), st.integers(300, 1_000))
def test_a_long_text_keeps_its_beginning_and_its_end(part: str, longest: int) -> None:
    text = f"ValueError: {part * 1_100} at the end"

    cut = cut_middle(text, longest)

    assert len(cut.encode()) <= longest
    assert f"\n[… cut here: the whole text has {len(text):,} characters …]\n" in cut
    begin, end = re.split(r"\n\[….*…\]\n", cut)
    assert text.startswith(begin)
    assert text.endswith(end)
    # At most one character is lost at each cut.
    assert len(cut.encode()) > longest - 8
