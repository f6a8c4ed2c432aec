"""Texts of clients that are kept in full only up to a length."""

LONGEST_TEXT = 8 * 1024
"""Bytes, in UTF-8, of a text that explains something, such as the reason for which a run failed.
Lists, pages, events and logs carry such texts, and a thousand of them may be in one answer."""


def cut_middle(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text of at most `longest` bytes: its beginning, its end, and what was left out.

    The reason of an exception may be at either end.
    """
    # Most texts are short, and a character has at most four bytes.
    if 4 * len(text) <= longest:
        return text
    data = text.encode("utf-8", "replace")
    if len(data) <= longest:
        return text
    note = f"\n[… cut here: the whole text has {len(text):,} characters …]\n"
    half = (longest - len(note.encode())) // 2
    # A character that would be cut is left out.
    return "".join(
        (data[:half].decode("utf-8", "ignore"), note, data[-half:].decode("utf-8", "ignore"))
    )
