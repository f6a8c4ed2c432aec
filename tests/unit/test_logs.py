"""Logs are structured: one JSON object per line for machines, colours for people."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from logging.handlers import TimedRotatingFileHandler
from pathlib import Path
from typing import Any

import pytest
import structlog

from flower_nats.logs import configure_logs, get_logger
from flower_nats.settings import LogSettings


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_names_the_event_and_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings())

    get_logger("somewhere").info("node_activated", node_id=7)

    (line,) = lines_of(capsys.readouterr().err)
    assert line["event"] == "node_activated"
    assert line["node_id"] == 7
    assert line["level"] == "info"
    assert line["logger"] == "somewhere"
    assert line["timestamp"].endswith("Z")


def test_records_of_libraries_have_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings())

    logging.getLogger("library").warning("slow answer from %s", "somebody")

    (line,) = lines_of(capsys.readouterr().err)
    assert line["event"] == "slow answer from somebody"
    assert line["logger"] == "library"


def test_an_exception_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings())

    try:
        raise ValueError("no such thing")
    except ValueError:
        get_logger("somewhere").exception("rpc_failed")

    (line,) = lines_of(capsys.readouterr().err)
    assert "ValueError: no such thing" in line["exception"]


def test_less_severe_lines_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(level="warning"))

    get_logger("somewhere").info("node_activated")
    get_logger("somewhere").warning("node_lost")

    assert [line["event"] for line in lines_of(capsys.readouterr().err)] == ["node_lost"]


def test_a_terminal_gets_text_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    configure_logs(LogSettings())

    get_logger("somewhere").info("node_activated", node_id=7)

    assert "node_activated" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()


def test_a_name_does_nothing_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    configure_logs(LogSettings())

    get_logger("somewhere").info("run_created", fab_id="e\x1b[2J")

    assert "\\x1b[2J" in terminal.getvalue()
    assert "\x1b[2J" not in terminal.getvalue()


def test_a_log_file_takes_json_and_is_rotated_by_time(tmp_path: Path) -> None:
    file = tmp_path / "superlink.log"
    configure_logs(LogSettings(file=file, rotation_interval_hours=2, rotation_backup_count=3))

    get_logger("somewhere").info("node_activated", node_id=7)

    (line,) = lines_of(file.read_text())
    assert line["event"] == "node_activated"
    (rotation,) = (
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, TimedRotatingFileHandler)
    )
    assert rotation.interval == 2 * 60 * 60
    assert rotation.backupCount == 3
    rotation.close()


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_text_of_a_client_cannot_fill_the_disk(
    stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = stream()
    monkeypatch.setattr("sys.stderr", written)
    configure_logs(LogSettings())

    get_logger("somewhere").info("run_finished", details="x" * 10_000_000 + "end")

    line = written.getvalue()
    assert "the whole text has 10,000,003 characters" in line
    assert "xend" in line
    assert len(line) < 40_000
