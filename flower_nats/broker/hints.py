"""Hints: core-NATS messages that say "look again". A lost hint may cause a delay, never a loss.

`Hints` sends them. `Wakes` receives all hints over one subscription per process, and passes them to
the calls that wait in the process. So a held call costs the broker nothing.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nats.aio.msg import Msg

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection


class Hints:
    """Sends hints."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def run_changed(self, run_id: int) -> None:
        """Say that the status of a run, or of one of its tasks, has changed."""
        await self._connection.hint(subjects.event_run(run_id))
        await self._connection.hint(subjects.wake_log(run_id))

    async def node_changed(self, node_id: int) -> None:
        """Say that a node was registered or unregistered."""
        await self._connection.hint(subjects.event_node(node_id))

    async def accounts_changed(self) -> None:
        """Say that tokens of an account were revoked."""
        await self._connection.hint(subjects.EVENT_ACCOUNTS)

    async def tasks_pending(self) -> None:
        """Say that a task waits for a SuperExec."""
        await self._connection.hint(subjects.WAKE_TASKS)


class Wait:
    """The wait of one call for hints on one subject. Create it first, then look, then wait."""

    def __init__(self, wakes: "Wakes") -> None:
        self._wakes = wakes
        self._event = asyncio.Event()
        self._payloads: list[bytes] = []
        self.lost = False
        """True if hints may have been missed since the last `take`. Then look at everything
        again."""

    def notify(self, payload: bytes) -> None:
        """Note a hint."""
        self._payloads.append(payload)
        self._event.set()

    def disturb(self) -> None:
        """Wake up without a hint, to look again or to end."""
        self.lost = True
        self._event.set()

    async def wait(self, timeout: float) -> bool:
        """Wait for a hint for at most `timeout` seconds; return whether to look again."""
        self._wakes.waiting += 1
        try:
            async with asyncio.timeout(max(0.0, timeout)):
                await self._event.wait()
        except TimeoutError:
            return False
        finally:
            self._wakes.waiting -= 1
        return True

    def take(self) -> list[bytes]:
        """Return the payloads of the hints since the last call, and forget them."""
        payloads, self._payloads = self._payloads, []
        self.lost = False
        self._event.clear()
        return payloads


class Wakes:
    """Receives all hints, and wakes the calls of this process that wait for them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waits: defaultdict[str, set[Wait]] = defaultdict(set)
        self._listeners: list[tuple[str, Callable[[str, bytes], None]]] = []
        self._loss_listeners: list[Callable[[], None]] = []
        self.waiting = 0
        """How many calls wait for hints."""

    async def start(self) -> None:
        """Begin to listen."""
        for subject in subjects.HINTS:
            await self._connection.subscribe(subject, self._on_message)
        self._connection.on_hint(self._on_hint)
        self._connection.on_reconnect(self._on_loss)

    def on_node_wake(self, callback: Callable[[int], None]) -> None:
        """Call `callback(node_id)` when an instruction for a node has been stored."""
        self._listen(subjects.WAKE_NODE, lambda rest, _: callback(int(rest)))

    def on_node_event(self, callback: Callable[[int], None]) -> None:
        """Call `callback(node_id)` when a node was registered or unregistered."""
        self._listen(subjects.EVENT_NODE, lambda rest, _: callback(int(rest)))

    def on_run_event(self, callback: Callable[[int], None]) -> None:
        """Call `callback(run_id)` when the status of a run, or of a task of it, has changed."""
        self._listen(subjects.EVENT_RUN, lambda rest, _: callback(int(rest)))

    def on_object(self, callback: Callable[[int, str, bytes], None]) -> None:
        """Call `callback(run_id, object_id, payload)` when an object is whole."""

        def read(rest: str, payload: bytes) -> None:
            run_id, _, object_id = rest.partition(".")
            callback(int(run_id), object_id, payload)

        self._listen(subjects.WAKE_OBJECT, read)

    def on_session(self, callback: Callable[[int, bytes], None]) -> None:
        """Call `callback(run_id, payload)` when messages of a push session are out."""
        self._listen(subjects.WAKE_SESSION, lambda rest, payload: callback(int(rest), payload))

    def on_log(self, callback: Callable[[int, bytes], None]) -> None:
        """Call `callback(run_id, payload)` when lines of a run's log have been stored."""
        self._listen(subjects.WAKE_LOG, lambda rest, payload: callback(int(rest), payload))

    def on_lines(self, callback: Callable[[int, bytes], None]) -> None:
        """Call `callback(run_id, payload)` when log lines of a run could not be stored at once."""
        self._listen(subjects.EVENT_LINES, lambda rest, payload: callback(int(rest), payload))

    def on_gateway(self, callback: Callable[[str, bytes], None]) -> None:
        """Call `callback(gateway_id, payload)` for each sign of life of a gateway."""
        self._listen(subjects.EVENT_GATEWAY, callback)

    def on_superlink(self, callback: Callable[[str, bytes], None]) -> None:
        """Call `callback(superlink_id, payload)` for each sign of life of a superlink."""
        self._listen(subjects.EVENT_SUPERLINK, callback)

    def on_signatures(self, callback: Callable[[bytes], None]) -> None:
        """Call `callback(payload)` when signatures of SuperNodes were used at a gateway."""
        self._listen(subjects.EVENT_SIGNATURES, lambda _, payload: callback(payload))

    def on_accounts(self, callback: Callable[[], None]) -> None:
        """Call `callback()` when tokens of an account were revoked."""
        self._listen(subjects.EVENT_ACCOUNTS, lambda _rest, _payload: callback())

    def on_loss(self, callback: Callable[[], None]) -> None:
        """Call `callback()` whenever hints may have been missed."""
        self._loss_listeners.append(callback)

    @contextmanager
    def on(self, *hint_subjects: str) -> Iterator[Wait]:
        """Collect the hints on these subjects from now on."""
        wait = Wait(self)
        for subject in hint_subjects:
            self._waits[subject].add(wait)
        try:
            yield wait
        finally:
            for subject in hint_subjects:
                self._waits[subject].discard(wait)
                if not self._waits[subject]:
                    del self._waits[subject]

    def disturb_all(self) -> None:
        """Make every waiting call look again."""
        for waits in list(self._waits.values()):
            for wait in waits:
                wait.disturb()

    def _on_loss(self) -> None:
        for callback in self._loss_listeners:
            callback()
        self.disturb_all()

    async def _on_message(self, message: Msg) -> None:
        self._on_hint(message.subject, message.data)

    def _on_hint(self, subject: str, payload: bytes) -> None:
        for wait in self._waits.get(subject, ()):
            wait.notify(payload)
        for prefix, callback in self._listeners:
            if subject.startswith(prefix):
                callback(subject.removeprefix(prefix), payload)

    def _listen(self, prefix: str, callback: Callable[[str, bytes], None]) -> None:
        """Call `callback` with the part of a hint's subject after `prefix`, and its payload."""
        self._listeners.append((prefix, callback))
