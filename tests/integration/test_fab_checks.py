"""FABs that are made for long checks: other callers do not notice."""

from __future__ import annotations

import asyncio
import io
import sys
import time
import zipfile
from collections.abc import AsyncIterator

import pytest

from flower_nats.model.errors import ApiError, ErrorCode, Unavailable
from flower_nats.model.fab import InvalidFab
from flower_nats.superlink.runs import fab_checks
from flower_nats.superlink.runs.fab_checks import FabChecks
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from harness.children import PATIENCE
from harness.fabs import PROJECT, make_fab
from tests.integration.superlinks import Superlink, refused, running_superlink

MANY_BOUNDS = f'dependencies = ["a{",>=1" * 200_000}"]\nversion ='
"""12 seconds of computing, in a FAB of 1,244 bytes."""


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn) as superlink:
        yield superlink


def bzip2(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("pyproject.toml", PROJECT)
        archive.writestr("swells", content)
    return packed.getvalue()


def child(work: str) -> tuple[str, ...]:
    """Return the command of a child that does this work in place of a check."""
    text = f"from flower_nats.superlink.runs import fab_child as c\n{work}\nc.main()"
    return (sys.executable, "-P", "-c", text)


async def submit(superlink: Superlink, fab: bytes) -> None:
    request = control.StartRunRequest(fab=common.Fab(content=fab))
    await superlink.call("Control", "StartRun", request, control.StartRunResponse)


@pytest.mark.parametrize(
    ("fab", "said"),
    [
        (make_fab(PROJECT.replace("version =", MANY_BOUNDS)), "larger than"),
        (
            make_fab(
                PROJECT.replace("version =", f'dependencies = ["a{",>=1" * 200}"]\nversion =')
            ),
            "at most 500",
        ),
        (bzip2(bytes(60_000_000)), "not packed with deflate"),
    ],
)
async def test_a_few_bytes_that_take_long_to_read_are_refused_for_what_they_are(
    superlink: Superlink, fab: bytes, said: str
) -> None:
    assert len(fab) < 2_000

    # The refusal names the fault, not the time of the check.
    with refused(ErrorCode.INVALID_RUN_CONFIG, said):
        await submit(superlink, fab)


async def test_others_are_served_while_apps_are_checked(
    superlink: Superlink, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = child("c.read_fab = lambda _: sum(iter(int, 1)); c.CPU_SECONDS = 1")
    monkeypatch.setattr(fab_checks, "_COMMAND", busy)
    submissions = [asyncio.create_task(submit(superlink, make_fab())) for _ in range(3)]
    served = 0
    while not any(one.done() for one in submissions):
        await superlink.ask("RunState", run_id=1)
        served += 1
        await asyncio.sleep(0.05)

    # Each check computes for a second: a caller that waited for it would be served once.
    assert served > 3
    # None is accepted. On a busy machine it is enough that they were put off.
    for outcome in await asyncio.gather(*submissions, return_exceptions=True):
        assert isinstance(outcome, ApiError)


async def test_a_check_that_takes_too_much_is_ended_and_told_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for work, said in (
        ("c.read_fab = lambda _: sum(iter(int, 1)); c.CPU_SECONDS = 1", "seconds. Remedy"),
        ("c.read_fab = lambda _: bytes(2 * c.MEMORY_BYTES)", "bytes of memory"),
    ):
        monkeypatch.setattr(fab_checks, "_COMMAND", child(work))
        with pytest.raises(InvalidFab, match=said):
            await FabChecks().check(make_fab(), time.monotonic() + PATIENCE)


async def test_a_check_ends_when_nobody_waits_for_it_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fab_checks, "_COMMAND", ("sleep", "60"))
    checks, began = FabChecks(), time.monotonic()

    # Two checks are under way, and one waits for its turn.
    outcomes = await asyncio.gather(
        *(checks.check(make_fab(), began + 3) for _ in range(3)), return_exceptions=True
    )

    assert [type(one) for one in outcomes] == [Unavailable] * 3
    # After the timeouts there is room for a new check.
    monkeypatch.undo()
    assert (await checks.check(make_fab(), time.monotonic() + PATIENCE)).fab_id == "somebody/app"


async def test_too_many_apps_at_once_are_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fab_checks, "_COMMAND", ("sleep", "60"))
    checks = FabChecks()
    until = time.monotonic() + 3
    waiting = [asyncio.create_task(checks.check(make_fab(), until)) for _ in range(16)]
    await asyncio.sleep(0)

    with pytest.raises(Unavailable, match="16 apps"):
        await checks.check(make_fab(), until)
    assert not any(one.done() for one in waiting)
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_child_that_cannot_start_is_no_fault_of_the_app(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fab_checks, "_COMMAND", (sys.executable, "-c", "import nothing"))

    with pytest.raises(Unavailable):
        await FabChecks().check(make_fab(), time.monotonic() + PATIENCE)


async def test_the_child_sees_no_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWER_NATS_SUPERLINK_DATABASE", "postgresql://u:secret@host/db")
    look = "import os\n"
    look += "def see(_): raise c.InvalidFab(repr(dict(os.environ)))\nc.read_fab = see"
    monkeypatch.setattr(fab_checks, "_COMMAND", child(look))

    with pytest.raises(InvalidFab) as seen:
        await FabChecks().check(make_fab(), time.monotonic() + PATIENCE)

    assert "secret" not in str(seen.value)


async def test_an_app_that_was_found_good_is_not_checked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks = FabChecks()
    good = await checks.check(make_fab(), time.monotonic() + PATIENCE)
    monkeypatch.setattr(fab_checks, "_COMMAND", ("false",))

    assert await checks.check(make_fab(), time.monotonic() + PATIENCE) == good
    other = make_fab(PROJECT.replace("1.2.3", "1.2.4"))
    with pytest.raises(Unavailable):
        await checks.check(other, time.monotonic() + PATIENCE)
