"""The gateway's cache of answers, and their lifetime."""

import asyncio
from collections.abc import Callable

import pytest

from flower_nats.model.errors import Unavailable
from flower_nats_gateway.cluster import expiring_cache
from flower_nats_gateway.cluster.expiring_cache import ExpiringCache


class Superlink:
    """Answers a question if it is reachable, once the line is free."""

    def __init__(self) -> None:
        self.answer: str | None = "starting"
        self.is_there = True
        self.line = asyncio.Event()
        self.line.set()
        self.asked = 0

    async def ask(self, _key: int) -> str | None:
        self.asked += 1
        if not self.is_there:
            raise Unavailable("nobody")
        answer = self.answer
        await self.line.wait()
        return answer


async def on_its_way(
    superlink: Superlink, runs: ExpiringCache[int, str]
) -> asyncio.Task[str | None]:
    """Ask about run 1; the present answer arrives once the line is free."""
    superlink.line.clear()
    waiting = asyncio.create_task(runs.get(1))
    while not superlink.asked:
        await asyncio.sleep(0)
    return waiting


async def test_what_is_known_is_not_asked_again() -> None:
    superlink = Superlink()
    runs = ExpiringCache(superlink.ask, 60.0)
    assert [await runs.get(1) for _ in range(3)] == ["starting"] * 3
    assert superlink.asked == 1


async def test_an_answer_that_changes_on_its_way_is_asked_for_again() -> None:
    superlink = Superlink()
    runs = ExpiringCache(superlink.ask, 60.0)
    waiting = await on_its_way(superlink, runs)

    superlink.answer = "running"
    runs.drop(lambda key, _: key == 1)
    superlink.line.set()

    assert await waiting == "running"
    assert await runs.get(1) == "running"


async def test_it_is_asked_for_again_however_much_else_changes_before() -> None:
    asked = 0

    async def ask(_key: int) -> str:
        """Change many other runs during the question, and in the end this run, once."""
        nonlocal asked
        asked += 1
        for other in range(2, 10):
            runs.drop(is_run(other))
        if asked > 1:
            return "running"
        runs.drop(is_run(1))
        return "starting"

    runs = ExpiringCache(ask, 60.0)

    assert [await runs.get(1), await runs.get(1)] == ["running", "running"]
    assert asked == 2


def is_run(number: int) -> Callable[[int, str], bool]:
    return lambda key, _: key == number


async def test_a_fresh_answer_is_not_one_that_was_asked_for_before() -> None:
    superlink = Superlink()
    runs = ExpiringCache(superlink.ask, 60.0)
    waiting = await on_its_way(superlink, runs)

    superlink.answer = "running"
    fresh = asyncio.create_task(runs.fresh(1))
    await asyncio.sleep(0)
    superlink.line.set()

    assert await fresh == "running"
    assert await waiting == await runs.get(1) == "running"


async def test_an_old_answer_counts_while_nobody_can_be_asked() -> None:
    superlink = Superlink()
    runs = ExpiringCache(superlink.ask, 0.0)
    assert await runs.get(1) == "starting"

    superlink.is_there = False
    assert await runs.get(1) == "starting"
    with pytest.raises(Unavailable):
        await runs.get(2)

    superlink.is_there, superlink.answer = True, "running"
    assert await runs.get(1) == "running"
    superlink.answer = None
    assert await runs.get(1) is None


async def test_an_old_answer_still_counts_when_a_fresh_one_cannot_be_had() -> None:
    superlink = Superlink()
    runs = ExpiringCache(superlink.ask, 60.0)
    await runs.get(1)

    superlink.is_there = False
    with pytest.raises(Unavailable):
        await runs.fresh(1)

    assert await runs.get(1) == "starting"


async def test_nobody_waits_long_for_an_answer_where_there_is_an_old_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(expiring_cache, "_GRACE", 0.01)
    superlink = Superlink()
    runs = ExpiringCache(superlink.ask, 0.0)
    assert await runs.get(1) == "starting"
    superlink.line.clear()
    superlink.answer = "running"
    assert await runs.get(1) == "starting"
    superlink.line.set()


async def test_an_answer_that_was_dropped_does_not_count_any_more() -> None:
    superlink = Superlink()
    runs = ExpiringCache(superlink.ask, 60.0)
    await runs.get(1)
    runs.drop(lambda _key, answer: answer == "starting")
    superlink.is_there = False
    with pytest.raises(Unavailable):
        await runs.get(1)


async def test_no_answer_counts_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiring_cache, "_STALE_SECONDS", 0.0)
    superlink = Superlink()
    runs = ExpiringCache(superlink.ask, 0.0)
    await runs.get(1)
    superlink.is_there = False
    await asyncio.sleep(0.001)
    with pytest.raises(Unavailable):
        await runs.get(1)


async def test_after_a_loss_of_hints_everything_is_asked_for_anew() -> None:
    superlink = Superlink()
    runs = ExpiringCache(superlink.ask, 60.0)
    await runs.get(1)
    superlink.answer = "finished"
    runs.doubt()
    assert await runs.get(1) == "finished"
