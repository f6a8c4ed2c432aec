"""The mailbox as a state machine: every instruction has exactly one outcome, whatever happens.

Two replicas serve a ServerApp and three SuperNodes over a real broker. Hypothesis chooses the
calls. It decides where a replica stalls, dies or loses an answer (between any two requests to the
broker), which calls race, when nodes die, leave and come back, when time passes and when the broker
restarts. The test checks the broker's content after every step, and at the end, when all
interrupted operations have finished.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Coroutine, Iterator
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flower_nats.broker import subjects
from flower_nats.broker.mailbox import Mailbox
from flower_nats.model.caller import SUPERLINK_NODE_ID
from flower_nats.wire import common_pb2 as common
from harness.messages import Parcel
from tests.integration.stage import TROUBLES, Cluster, Plan, Running, Stage, own_time
from tests.integration.stepped_federation import (
    LONG,
    NODES,
    RUN,
    SHORT,
    Client,
    Holdings,
    Request,
    ServerApp,
    SuperNode,
    expires,
    forget_expired,
    holdings,
    make_instruction,
    make_reply,
)

MOMENT = 5.0
"""Seconds after which housekeeping mends the unfinished work of gateways."""

STALL = 70.0
"""Seconds that pass at once: the longest stop of a replica."""

LONGEST_STALL = 210.0
"""Seconds after which running operations are finished: less than the duplicate window."""

IDLE_SESSION = 140.0
"""Seconds after which housekeeping may be about to drop a push session."""

MOST = 7
"""Instructions in one history."""

MISHAPS = (
    "a node dies",
    "a node starts",
    "a node is silent",
    "a node is heard",
    "a node answers anything",
    "a moment passes",
    "time passes",
    "the broker restarts",
)

EXAMPLES = int(os.environ.get("MAILBOX_MACHINE_EXAMPLES", "0"))
"""The number of random histories, in place of the same few every time."""

plans = st.builds(Plan, st.sampled_from([0, 0, 1, 1, 2, 3, 4, 6]), st.sampled_from(TROUBLES))
replicas = st.integers(0, 1)
picks = st.integers(0, 11)
node_lists = st.lists(st.sampled_from(NODES), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def cluster(nats_url: str, loop: asyncio.AbstractEventLoop) -> Iterator[Cluster]:
    with own_time() as clock:
        cluster = loop.run_until_complete(Cluster.connect(nats_url, clock))
        yield cluster
        loop.run_until_complete(cluster.close())


class MailboxMachine(RuleBasedStateMachine):
    def __init__(self, cluster: Cluster, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self.stage = Stage(cluster)
        self.app = ServerApp()
        self.nodes = [SuperNode(one) for one in NODES]
        self.replies: dict[str, Parcel] = {}
        self.accepted: dict[str, str] = {}
        """The reply that the test has seen in the broker, by instruction."""
        self.refused: set[str] = set()
        """Instructions with a reply that was in time and refused."""
        self.numbers = itertools.count(1)
        self.sending_since = 0.0
        self.broken = False
        self.do(self.stage.clear())

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            self.loop.run_until_complete(work)
        except BaseException:
            self.broken = True
            raise

    @property
    def runs(self) -> bool:
        return self.stage.metadata.run == "running"

    @property
    def requests(self) -> list[tuple[Client, Request]]:
        clients: list[Client] = [self.app, *self.nodes]
        return [(client, one) for client in clients for one in client.waiting]

    # The replicas

    @rule(pick=picks, replica=replicas, plan=plans, hints=st.booleans())
    def one_call(self, pick: int, replica: int, plan: Plan, hints: bool) -> None:
        async def serve() -> None:
            await self.stage.play(self._start(pick, replica, hints), plan)

        self.do(serve())

    @rule(
        picked=st.lists(picks, min_size=2, max_size=3),
        replica=replicas,
        turns=st.lists(st.integers(0, 2), max_size=30),
        hints=st.booleans(),
    )
    def race(self, picked: list[int], replica: int, turns: list[int], hints: bool) -> None:
        """Calls and sweeps take turns, at alternating replicas."""

        async def race() -> None:
            racing = [
                self._start(pick, (replica + number) % 2, hints)
                for number, pick in enumerate(picked)
            ]
            await self.stage.race(racing, turns)

        self.do(race())

    @rule(calls=st.integers(4, 30), replica=replicas)
    def all_goes_well(self, calls: int, replica: int) -> None:
        async def serve() -> None:
            for number in range(calls):
                self._wish()
                if self.requests:
                    where = (replica + number // 3) % 2
                    wanted = self.requests[number % len(self.requests)]
                    await self.stage.play(self._call(wanted, where), Plan())

        self.do(serve())

    def _start(self, pick: int, replica: int, hints: bool) -> Running:
        """Begin a call, continue a stalled operation, or begin a sweep."""
        self._wish()
        choice = pick % (len(self.requests) + len(self.stage.running) + 1)
        if choice < len(self.requests):
            return self._call(self.requests[choice], replica, hints)
        choice -= len(self.requests)
        if choice < len(self.stage.running):
            return self.stage.running[choice]
        return self.stage.sweep(replica)

    def _call(self, wanted: tuple[Client, Request], replica: int, hints: bool = True) -> Running:
        return self.stage.call(*wanted, replica, hints)

    # The clients

    @initialize(nodes=node_lists, shared=st.integers(0, 1))
    def app_begins(self, nodes: list[int], shared: int) -> None:
        self._send(nodes, shared, LONG)

    @precondition(lambda self: self.runs and not self.app.busy)
    @rule(nodes=node_lists, shared=st.integers(0, 1), ttl=st.sampled_from([LONG, SHORT]))
    def app_sends(self, nodes: list[int], shared: int, ttl: float) -> None:
        if len(self.app.instructions) + len(nodes) <= MOST:
            self._send(nodes, shared, ttl)

    def _send(self, nodes: list[int], shared: int, ttl: float) -> None:
        self.sending_since = self.stage.clock.jumped
        numbers = [next(self.numbers) for _ in nodes]
        now = self.stage.clock.time()
        self.app.send(
            [
                make_instruction(node, number, shared, ttl, now)
                for node, number in zip(nodes, numbers, strict=True)
            ]
        )

    def _wish(self) -> None:
        """Give idle clients their next call."""
        if not self.runs:
            return
        if not self.app.busy and self.app.waits_for:
            self.app.pull(self._app_got)
        for node in self.nodes:
            if node.alive and not node.pulling and self._may_get_something(node):
                self._pull(node)
            for asked in sorted(node.work):
                self._answer(node, asked, len(self.replies) % 2)

    def _may_get_something(self, node: SuperNode) -> bool:
        """Return whether the node may get an instruction: other pulls would only cost time here."""
        return any(
            one.flwr.metadata.dst_node_id == node.node_id
            for one in self.app.instructions.values()
            if one.message_id not in self.app.outcomes and one.message_id not in node.known
        )

    def _pull(self, node: SuperNode) -> None:
        async def got(message: common.Message) -> None:
            await self._node_got(node, message)

        node.pull(got)

    def _make_reply(self, node: SuperNode, question: Parcel, shared: int) -> Parcel:
        number, now = next(self.numbers), self.stage.clock.time()
        reply = make_reply(question, node.node_id, number, shared, now)
        self.replies[reply.message_id] = reply
        return reply

    def _answer(self, node: SuperNode, asked: str, shared: int) -> None:
        question, began = node.work.pop(asked), self.stage.clock.jumped
        if self._expired(asked):
            return

        def refused() -> None:
            node.refused.add(asked)
            if self.stage.clock.jumped - began < IDLE_SESSION:
                self.refused.add(asked)

        node.push_reply(self._make_reply(node, question, shared), refused)

    # Mishaps

    @rule(what=st.sampled_from(MISHAPS), pick=picks)
    def mishap(self, what: str, pick: int) -> None:
        node = self.nodes[pick % 3]
        if what == "a node dies":
            node.die()
        elif what == "a node starts" and not node.alive and not node.busy:
            node.start()
        elif what == "a node is silent":
            self.stage.metadata.nodes[node.node_id] = "offline"
        elif what == "a node is heard" and node.alive:
            self.stage.metadata.nodes[node.node_id] = "online"
        elif what == "a node answers anything" and node.alive:
            self._answer_anything(node, pick // 3)
        elif what == "a moment passes":
            self.do(self._let_time_pass(MOMENT))
        elif what == "time passes":
            # A ServerApp that is slower than this is refused, as it should be.
            if not self.app.busy or self.stage.clock.jumped - self.sending_since < STALL:
                self.do(self._let_time_pass(STALL))
        elif what == "the broker restarts":
            self.do(self._restart_broker())

    def _answer_anything(self, node: SuperNode, which: int) -> None:
        """Push a second reply, or a reply to an instruction that this node has not got."""
        known = sorted(self.app.sent)
        question = self.app.instructions[known[which % len(known)]] if known else None
        if self.runs and question and expires(question) > self.stage.clock.time():
            node.push_reply(self._make_reply(node, question, 1), lambda: None)

    async def _let_time_pass(self, seconds: float) -> None:
        await self.stage.finish(LONGEST_STALL - seconds)
        self.stage.clock.jump(seconds)
        await forget_expired(self.stage.outside, self.stage.clock)

    async def _restart_broker(self) -> None:
        """Make the broker forget the ids of deleted messages; see docs/guarantees.md."""
        # First, interrupted pushes finish: in reality housekeeping has had the time to mend them.
        await self.stage.finish()
        await self._let_time_pass(MOMENT)
        await self.stage.play(self.stage.sweep(0), Plan())
        await self.stage.outside.memory.restart(self.stage.outside, subjects.MESSAGES_STREAM)

    @precondition(lambda self: self.runs and len(self.app.instructions) > MOST // 2)
    @rule(replica=replicas, plan=plans, chance=st.integers(0, 5))
    def run_stops(self, replica: int, plan: Plan, chance: int) -> None:
        async def stop() -> None:
            self.stage.metadata.run = "finished"
            for client in (self.app, *self.nodes):
                client.forget()
            work = self.stage.replicas[replica].mailbox.end_run(RUN)
            await self.stage.play(self.stage.begin("end of run", replica, work), plan)

        if chance == 0:
            self.do(stop())

    # The clients' view

    async def _app_got(self, message: common.Message) -> None:
        metadata = message.metadata
        asked = metadata.reply_to_message_id
        assert asked in self.app.waits_for
        told = self.app.outcomes.setdefault(asked, metadata)
        if told.message_id != metadata.message_id:
            assert expires(self.app.instructions[asked]) <= self.stage.clock.time(), "two outcomes"
            self.app.outcomes[asked] = metadata
        if metadata.src_node_id != SUPERLINK_NODE_ID:
            assert metadata.message_id in self.replies
        for object_id in self._objects_of(metadata.message_id):
            await self._require_object(object_id)
        self.app.confirm(asked)

    async def _node_got(self, node: SuperNode, message: common.Message) -> None:
        question = self.app.instructions[message.metadata.message_id]
        assert message.metadata.dst_node_id == node.node_id
        if question.message_id not in self.accepted and expires(question) > self.stage.clock.time():
            for object_id in question.objects:
                await self._require_object(object_id)
        node.confirm(question)

    async def _require_object(self, object_id: str) -> None:
        found = await self.stage.replicas[0].read(object_id)
        assert found is not None or not self.runs, f"object {object_id} is gone"

    def _objects_of(self, reply_id: str) -> set[str]:
        return set(self.replies[reply_id].objects) if reply_id in self.replies else {reply_id}

    # The invariants

    @invariant()
    def one_outcome_each(self) -> None:
        self.do(self._check())

    async def _check(self) -> None:
        if not self.runs:
            return
        held = await holdings(self.stage.outside)
        for asked, keys in held.replies.items():
            self._check_reply(held, asked, [one.message_id for one in keys])
        for asked in self.refused:
            over = asked in self.accepted or asked in self.app.outcomes or self._expired(asked)
            assert over, "a reply was refused for no reason"
        for asked, reply_id in self.accepted.items():
            if asked not in held.replies and asked not in self.app.confirming:
                assert self._expired(asked), f"reply {reply_id} is lost"
        for asked in held.instructions.keys() - held.replies.keys():
            assert asked not in self.app.confirming, "an answered instruction came back"
            if not self._expired(asked):
                assert set(self.app.instructions[asked].objects) <= held.objects

    def _check_reply(self, held: Holdings, asked: str, found: list[str]) -> None:
        assert len(found) == 1, "two replies"
        if asked in self.app.confirmed:
            # The replica forgets the reply in the background, or never if it has died.
            outcome = self.app.outcomes[asked].message_id
            assert found[0] == outcome, "a reply after the outcome was confirmed"
            return
        known = self.accepted.setdefault(asked, found[0])
        if known != found[0]:
            assert self._expired(asked), "a reply took the place of another"
            self.accepted[asked] = found[0]
        assert self._objects_of(found[0]) <= held.objects, "a reply without its objects"

    def _expired(self, asked: str) -> bool:
        return expires(self.app.instructions[asked]) <= self.stage.clock.time()

    # The end of a history

    def teardown(self) -> None:
        if self.broken:
            self.loop.run_until_complete(self._abort())
        else:
            self.do(self._wind_up())

    async def _abort(self) -> None:
        for replica in range(2):
            await self.stage.kill(replica)

    async def _wind_up(self) -> None:
        """Finish interrupted operations; check that each has one outcome, and nothing is left."""
        await self.stage.finish()
        if self.runs:
            await self._end_all_calls()
            await self._require_answers()
            await self._answer_all()
            missing = self.app.instructions.keys() - self.app.confirmed
            if missing:
                # After a refused reply, a stock node tries again only after its restart.
                refused = {one for node in self.nodes for one in node.refused}
                assert missing <= refused, "an instruction without an outcome"
                for node in self.nodes:
                    node.die()
                await self._answer_all()
            assert self.app.confirmed == self.app.instructions.keys()
            for outcome in self.app.outcomes.values():
                mailbox = Mailbox(self.stage.outside)
                await mailbox.confirm_reply(RUN, outcome.message_id)
            await self._require_nothing_left()
            self.stage.metadata.run = "finished"
            await Mailbox(self.stage.outside).end_run(RUN)
        await self._require_nothing_left()

    async def _serve_all(self) -> None:
        for number in itertools.count():
            if not self.requests:
                return
            assert number < 500, "calls without an end"
            await self.stage.play(self._call(self.requests[0], number % 2), Plan())

    async def _end_all_calls(self) -> None:
        await self._serve_all()
        await self._let_time_pass(MOMENT)
        for replica in range(2):
            await self.stage.play(self.stage.sweep(replica), Plan())
        await self._check()

    async def _require_answers(self) -> None:
        """Check that each reply that a node has sent completely is accepted, unless another was."""
        held = await holdings(self.stage.outside)
        for node in self.nodes:
            for asked in node.answered.keys() - self.app.outcomes.keys():
                assert asked in held.replies or self._expired(asked), "a reply was lost"

    async def _answer_all(self) -> None:
        for _ in range(8):
            if self.app.confirmed == self.app.instructions.keys():
                return
            for node in self.nodes:
                if not node.alive:
                    node.start()
            await self._serve_all()
            for node in self.nodes:
                self.stage.metadata.nodes[node.node_id] = "online"
                for asked in sorted(node.work):
                    self._answer(node, asked, 0)
                self._pull(node)
            await self._end_all_calls()
            if self.app.waits_for:
                self.app.pull(self._app_got)
            await self._end_all_calls()

    async def _require_nothing_left(self) -> None:
        for _ in range(3):
            await self._let_time_pass(STALL)
            for replica in range(2):
                await self.stage.play(self.stage.sweep(replica), Plan())
        held = await holdings(self.stage.outside)
        assert not held.subjects
        assert not held.object_subjects


def test_every_instruction_has_one_outcome_whatever_happens(
    cluster: Cluster, loop: asyncio.AbstractEventLoop
) -> None:
    run_state_machine_as_test(
        cast(Any, lambda: MailboxMachine(cluster, loop)),
        settings=settings(
            max_examples=EXAMPLES or 40,
            stateful_step_count=40,
            derandomize=not EXAMPLES,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            # A failure prints its steps. A search for fewer steps would take minutes.
            phases=(Phase.generate, Phase.shrink) if EXAMPLES else (Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )
