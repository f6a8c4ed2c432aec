"""The secrets that SuperExecs can prove with a secret file."""

from __future__ import annotations

from pathlib import Path

import pytest

from flower_nats.model.superexec_secret import read_superexec_secrets

LONG, OTHER = b"x" * 16, b"y" * 16


@pytest.mark.parametrize(
    ("content", "secrets"),
    [
        (b"short", {b"short"}),
        (LONG, {LONG, LONG + b"\n"}),
        (LONG + b"\n", {LONG, LONG + b"\n"}),
        (
            LONG + b"\n" + OTHER,
            {LONG, LONG + b"\n", OTHER, OTHER + b"\n", LONG + b"\n" + OTHER},
        ),
        # Random bytes with a line break inside: the short part could be guessed.
        (b"z\n" + LONG, {b"z\n" + LONG}),
        (LONG + b"\nz", {LONG + b"\nz"}),
        (b"\n", {b"\n"}),
        (LONG + b"\n" + LONG + b"\n" + OTHER, {LONG + b"\n" + LONG + b"\n" + OTHER}),
    ],
)
def test_no_secret_is_easier_to_guess_than_the_file(
    content: bytes, secrets: set[bytes], tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)

    assert set(read_superexec_secrets(file)) == secrets


def test_an_empty_file_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()

    with pytest.raises(ValueError, match="is empty"):
        read_superexec_secrets(tmp_path / "secret")
