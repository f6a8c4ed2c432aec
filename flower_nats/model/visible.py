"""Texts of strangers, as terminals may print them: control characters are shown, not run.

What moves the cursor, sets a terminal's title or asks it to type something is a text beginning with an
escape character. It is shown as people write it in code: `\\x1b`, `\\u202e`.
"""

import re

_COLOURS = r"\[[0-9;:]{0,64}m"
"""What follows an escape character to set colours: logs of Flower have that, and it does no harm."""

_CONTROLS = "\x00-\x1f\x7f-\x9f"
# They end lines as well, or turn the order of what follows.
_BREAKS_AND_TURNS = "\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069"
_IN_NAME = re.compile(f"[{_CONTROLS}{_BREAKS_AND_TURNS}]")

_ESCAPE = re.compile(rf"\x1b(?!{_COLOURS})".encode())
# All but tab, line feed and carriage return, by which progress bars draw themselves; escape is above.
_LOW = bytes(code for code in (*range(0x20), 0x7F) if code not in b"\t\n\r\x1b")
_HIGH = re.compile(rb"\xc2[\x80-\x9f]")
"""Control characters as UTF-8 has them that take two bytes."""


def visible_lines(text: str) -> str:
    """Return a text of several lines without control characters but tabs, ends of lines and colours.

    It may have megabytes, which is why its bytes are looked at: nearly always they are fine.
    """
    data = text.encode("utf-8", "replace")
    if _ESCAPE.search(data):
        data = _ESCAPE.sub(rb"\\x1b", data)
    if len(data.translate(None, _LOW)) < len(data):
        for code in _LOW:
            data = data.replace(bytes([code]), b"\\x%02x" % code)
    if _HIGH.search(data):
        data = _HIGH.sub(lambda found: b"\\x%02x" % found[0][1], data)
    return data.decode()


def visible_name(text: str) -> str:
    """Return a text of one line, such as a name, without any control character."""
    return _IN_NAME.sub(_written, text)


def is_visible_name(text: str) -> bool:
    """Return whether a name has no control character."""
    return _IN_NAME.search(text) is None


def _written(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
