"""Texts of strangers in a form that is safe for terminals: control characters are shown, not run.

Texts that begin with an escape character can move the cursor, set a terminal's title or make it
type. Such characters are shown as in source code: `\\x1b`, `\\u202e`.
"""

import re

_COLOURS = r"\[[0-9;:]{0,64}m"
"""The text after an escape character that sets colours. Logs of Flower have it, and it is
harmless."""

_CONTROLS = "\x00-\x1f\x7f-\x9f"
# These also end lines, or change the direction of the text after them.
_BREAKS_AND_TURNS = "\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069"
_IN_NAME = re.compile(f"[{_CONTROLS}{_BREAKS_AND_TURNS}]")

_ESCAPE = re.compile(rf"\x1b(?!{_COLOURS})".encode())
# All but tab, line feed, carriage return (progress bars use it) and escape, which is above.
_LOW = bytes(code for code in (*range(0x20), 0x7F) if code not in b"\t\n\r\x1b")
_HIGH = re.compile(rb"\xc2[\x80-\x9f]")
"""Control characters that take two bytes in UTF-8."""


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8: one that was read from other bytes cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def visible_lines(text: str) -> str:
    """Return a text of several lines without control characters but tabs, ends of lines and colours.

    The text may have megabytes, so its bytes are checked first: nearly always they are fine.
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
