"""Events between two requests to the broker: one case each, step by step.

`test_mailbox_machine.py` looks for more such cases.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flower_nats.broker.connection import Connection
from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.streams import ensure_streams
from flower_nats.embedded.nats_server import NatsServer
from flower_nats.model.caller import SUPERLINK_NODE_ID
from flower_nats.wire import common_pb2 as common
from harness.messages import Parcel, instruction, reply
from tests.integration.stage import Cluster, Plan, Running, Stage, own_time
from tests.integration.stepped_federation import (
    LONG,
    NODES,
    RUN,
    SHORT,
    Request,
    ServerApp,
    SuperNode,
    forget_expired,
    holdings,
    make_instruction,
    make_reply,
)

HOUSEKEEPING = 5.0
"""Seconds after which housekeeping mends gateways' unfinished work, and collects objects."""

WORK = 20.0
"""Seconds for which a node works on an instruction."""

ABANDONED = 200.0
"""Seconds after which a push session is dropped."""

END = Plan()


class Federation(Stage):
    """A stage with a ServerApp and two SuperNodes."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.app = ServerApp()
        self.node, self.other_node = SuperNode(NODES[0]), SuperNode(NODES[1])
        self.pulled: list[str] = []
        """Ids of the messages that nodes have got."""

    def instruction(self, node: SuperNode, shared: int = 0, ttl: float = LONG) -> Parcel:
        number = node.node_id % 100
        return make_instruction(node.node_id, number, shared, ttl, self.clock.time())

    def reply(self, to: Parcel, node: SuperNode, shared: int = 0) -> Parcel:
        return make_reply(to, node.node_id, 1, shared, self.clock.time())

    async def deliver(self, *parcels: Parcel) -> None:
        self.app.send(parcels)
        await self.serve(self.app)

    async def pull(self, node: SuperNode) -> None:
        async def got(message: common.Message) -> None:
            self.pulled.append(message.metadata.message_id)

        node.pull(got)
        await self.serve(node)

    async def take(self, one: Parcel, node: SuperNode) -> None:
        await self.pull(node)
        assert self.pulled[-1] == one.message_id
        node.confirm(one)
        await self.serve(node)

    async def answer(self, one: Parcel, node: SuperNode, replica: int = 0) -> None:
        node.push_reply(one, lambda: None)
        await self.serve(node, replica)

    def app_pulls(self) -> None:
        async def got(message: common.Message) -> None:
            self.app.outcomes[message.metadata.reply_to_message_id] = message.metadata

        self.app.pull(got)

    async def outcomes(self, replica: int = 0) -> dict[str, common.Metadata]:
        for _ in range(2):
            self.app_pulls()
            await self.serve(self.app, replica)
        return self.app.outcomes

    async def confirm_all(self) -> None:
        for one in list(self.app.outcomes):
            self.app.confirm(one)
        await self.serve(self.app)

    async def housekeeping(self, seconds: float = HOUSEKEEPING, replica: int = 1) -> None:
        for _ in range(2):
            await self.pass_time(seconds)
            await self.play(self.sweep(replica), END)

    async def pass_time(self, seconds: float) -> None:
        self.clock.jump(seconds)
        await forget_expired(self.outside, self.clock)

    async def next_call(
        self, client: ServerApp | SuperNode, replica: int = 0, plan: Plan = END, hints: bool = True
    ) -> None:
        await self.play(self.call(client, client.waiting[0], replica, hints), plan)

    async def stop_in(self, client: ServerApp | SuperNode, request: Request, after: int) -> Running:
        """Begin a call, and stop its gateway after so many requests to the broker."""
        running = self.call(client, request, 0, hints=False)
        await running.operation.go_on(after)
        return running


@pytest.fixture
async def federation(nats_url: str) -> AsyncIterator[Federation]:
    with own_time() as clock:
        cluster = await Cluster.connect(nats_url, clock)
        federation = Federation(cluster)
        await federation.clear()
        yield federation
        await cluster.close()


async def test_a_broker_that_forgets_on_a_restart_still_accepts_no_second_reply(
    tmp_path: Path,
) -> None:
    server = NatsServer(tmp_path)
    connection = await Connection.connect([await server.start()], "test")
    await ensure_streams(connection)
    mailbox, question = Mailbox(connection), instruction(RUN, NODES[0])
    session = await mailbox.open_session(RUN, [question.outgoing])
    await mailbox.release(session, question.outgoing)
    answer, late = reply(question), reply(question)
    accepted = await mailbox.open_session(RUN, [answer.outgoing])
    refused = await mailbox.open_session(RUN, [late.outgoing])
    assert await mailbox.accept_reply(RUN, accepted, answer.outgoing)
    await mailbox.confirm_reply(RUN, answer.message_id)
    await connection.close()
    await server.stop()

    server = NatsServer(tmp_path)
    connection = await Connection.connect([await server.start()], "test")
    try:
        mailbox = Mailbox(connection)
        assert not await mailbox.accept_reply(RUN, refused, late.outgoing)
        assert not (await mailbox.in_flight(RUN))[RUN].replies
    finally:
        await connection.close()
        await server.stop()


async def test_a_reply_to_an_instruction_that_has_expired_is_refused(
    federation: Federation,
) -> None:
    app, node = federation.app, federation.node
    question = federation.instruction(node, ttl=SHORT)
    await federation.deliver(question)
    await federation.take(question, node)
    node.push_reply(federation.reply(question, node), lambda: None)
    await federation.next_call(node)

    await federation.pass_time(SHORT)
    assert question.message_id in await federation.outcomes()
    await federation.confirm_all()
    await federation.serve(node)

    assert not (await holdings(federation.outside)).replies
    assert app.outcomes[question.message_id].src_node_id == 1


async def test_an_instruction_whose_last_objects_met_at_two_gateways_is_not_unknown(
    federation: Federation,
) -> None:
    app = federation.app
    one, two = (federation.instruction(each) for each in (federation.node, federation.other_node))
    app.send([one, two])
    await federation.next_call(app, 1)
    # The first gateway has read the session and not yet stored its object. Then the second gateway
    # stores the other objects.
    [request] = [each for each in app.waiting if two.message_id in each.name]
    stopped = await federation.stop_in(app, request, 1 + len(app.waiting))
    while app.waiting:
        await federation.next_call(app, 1, hints=False)
    await federation.play(stopped, END)
    assert len((await holdings(federation.outside)).instructions) == 1

    assert app.sent == {one.message_id, two.message_id}
    assert not await federation.outcomes()

    await federation.housekeeping()
    await federation.pull(federation.node)
    await federation.pull(federation.other_node)
    assert set(federation.pulled) == {one.message_id, two.message_id}


async def test_a_gateway_does_not_go_on_with_a_session_that_was_dropped(
    federation: Federation,
) -> None:
    node = federation.node
    question = federation.instruction(node)
    await federation.deliver(question)
    await federation.take(question, node)
    node.push_reply(federation.reply(question, node), lambda: None)
    await federation.next_call(node)
    while len(node.waiting) > 1:
        await federation.next_call(node)
    await federation.housekeeping(ABANDONED)

    await federation.serve(node)

    outcomes = await federation.outcomes()
    assert [one.src_node_id for one in outcomes.values()] == [SUPERLINK_NODE_ID]


async def test_a_reply_is_not_whole_by_objects_of_its_instruction_that_will_go(
    federation: Federation,
) -> None:
    """Unchanged parts of a model have the same id in the reply."""
    node = federation.node
    question = federation.instruction(node, shared=1)
    await federation.deliver(question)
    await federation.take(question, node)
    await federation.pass_time(WORK)
    answer = federation.reply(question, node, shared=1)
    node.push_reply(answer, lambda: None)
    await federation.next_call(node)
    kept = question.objects.keys() & answer.objects.keys()
    assert kept
    late = [one for one in node.waiting if any(name in one.name for name in kept)]
    for request in [one for one in node.waiting if one not in late]:
        await federation.play(federation.call(node, request, 1), END)
    await federation.housekeeping()
    assert not (await holdings(federation.outside)).replies

    await federation.serve(node, 1)
    await federation.housekeeping()

    held = await holdings(federation.outside)
    assert question.message_id in held.replies
    assert answer.objects.keys() <= held.objects


@pytest.mark.parametrize("after", range(7))
async def test_a_gateway_that_dies_answering_for_the_unknown_leaves_nothing(
    federation: Federation, after: int
) -> None:
    question = federation.instruction(federation.node, ttl=SHORT)
    await federation.deliver(question)
    await federation.pass_time(SHORT)
    federation.app_pulls()
    await federation.next_call(federation.app, 0, Plan(after, "death"))

    assert question.message_id in await federation.outcomes()
    await federation.confirm_all()
    await federation.housekeeping()

    held = await holdings(federation.outside)
    assert not held.subjects
    assert not held.object_subjects


async def test_an_object_that_comes_after_the_runs_end_does_not_stay(
    federation: Federation,
) -> None:
    node = federation.node
    question = federation.instruction(node)
    await federation.deliver(question)
    await federation.take(question, node)
    node.push_reply(federation.reply(question, node), lambda: None)
    await federation.next_call(node)
    stopped = await federation.stop_in(node, node.waiting[0], 0)
    federation.metadata.run = "finished"
    await federation.replicas[1].mailbox.end_run(RUN)
    await federation.housekeeping()

    await federation.play(stopped, END)
    assert (await holdings(federation.outside)).object_subjects
    await federation.housekeeping(40.0)

    assert not (await holdings(federation.outside)).object_subjects


async def test_a_confirmation_that_is_late_takes_nothing_from_a_node_that_started_anew(
    federation: Federation,
) -> None:
    node = federation.node
    question = federation.instruction(node)
    await federation.deliver(question)
    await federation.pull(node)
    node.confirm(question)
    stopped = await federation.stop_in(node, node.waiting[0], 1)
    node.die()
    node.start()
    await federation.serve(node, 1)

    await federation.play(stopped, END)

    await federation.pull(node)
    assert federation.pulled == [question.message_id] * 2


async def test_a_push_that_is_tried_again_after_all_is_answered_is_not_refused(
    federation: Federation,
) -> None:
    app, node = federation.app, federation.node
    question = federation.instruction(node)
    app.send([question])
    await federation.next_call(app)
    while len(app.waiting) > 1:
        await federation.next_call(app)
    # The gateway stops after it has done all its work, and before it answers.
    await federation.next_call(app, 0, Plan(2, "UNANSWERED"))
    await federation.kill(0)
    await federation.take(question, node)
    await federation.pass_time(WORK)
    await federation.answer(federation.reply(question, node), node)
    await federation.housekeeping()

    await federation.serve(app, 1)

    assert question.message_id in app.sent
    assert question.message_id in await federation.outcomes()
    await federation.confirm_all()
    await federation.housekeeping()
    assert not (await holdings(federation.outside)).subjects


async def test_a_pull_that_was_stopped_gives_no_second_outcome(federation: Federation) -> None:
    app, node = federation.app, federation.node
    question = federation.instruction(node)
    await federation.deliver(question)
    federation.app_pulls()
    stopped = await federation.stop_in(app, app.waiting[0], 0)
    await federation.play(stopped, Plan(0, "cut"))
    await federation.take(question, node)
    await federation.answer(federation.reply(question, node), node)
    await federation.serve(app, 1)
    await federation.confirm_all()

    await federation.play(stopped, END)
    await federation.housekeeping()

    assert not (await holdings(federation.outside)).subjects


async def test_a_push_that_is_tried_again_has_the_same_session(federation: Federation) -> None:
    app = federation.app
    app.send([federation.instruction(federation.node)])
    await federation.next_call(app, 0, Plan(0, "UNANSWERED"))

    await federation.serve(app, 1)

    [_, released, _] = sorted((await holdings(federation.outside)).subjects)
    assert ".session." in released


@pytest.mark.parametrize("after", range(9))
async def test_an_error_takes_the_place_of_a_reply_that_has_expired_once(
    federation: Federation, after: int
) -> None:
    node = federation.node
    question = federation.instruction(node, ttl=SHORT)
    await federation.deliver(question)
    await federation.take(question, node)
    await federation.answer(federation.reply(question, node), node)
    await federation.pass_time(SHORT)
    federation.app_pulls()
    first = await federation.stop_in(federation.app, federation.app.waiting[0], after)
    await federation.play(first, Plan(0, "cut"))

    assert (await federation.outcomes(1))[question.message_id].src_node_id == 1
    await federation.confirm_all()
    await federation.play(first, END)
    await federation.housekeeping()

    held = await holdings(federation.outside)
    assert not held.subjects
    assert not held.object_subjects
