"""The benchmark's figures are valid only if its clients are right."""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from packaging.version import Version

from benchmarks.__main__ import parse, plan
from benchmarks.fleet import Key, Proof, Tally
from benchmarks.flower import VERSIONS, WIRES, NotMeasured, wire_of
from benchmarks.node import SimulatedNode, in_parallel
from benchmarks.payloads import reply_content, reply_to
from benchmarks.plan import FULL, QUICK
from benchmarks.processes import ChildFailed, Memory, free_address
from benchmarks.profile_server import top
from benchmarks.report import describe, table, verdicts
from benchmarks.scenarios import Ceiling, Cell, Exchange, Goal, Growth
from benchmarks.stock.records import instruction_content
from benchmarks.stock.serverapp import check_replies
from benchmarks.targets import TARGETS, FlowerNats, StockInMemory, part_of
from benchmarks.wire_grpc import GrpcWire
from benchmarks.worker import TooSlow, Worker
from flower_nats.wire import common_pb2 as common
from flower_nats.wire.messages import object_ids
from harness.flower import GRPC, HTTP, Flower
from harness.flower_environments import FOLDER_VARIABLE, Environment
from harness.messages import instruction

_SIZE = 12_000_000
_OURS = FlowerNats.name


def _asked(node: int = 7) -> common.Message:
    metadata = common.Metadata(
        run_id=1,
        message_id="a" * 64,
        src_node_id=1,
        dst_node_id=node,
        group_id="1",
        ttl=3600.0,
        message_type="train",
        created_at=time.time() - 60.0,
        src_task_id=5,
    )
    return common.Message(metadata=metadata)


def _reply(node: int = 7) -> Any:
    reply = reply_to(_asked(node), reply_content(1000))
    return inflate_object_from_contents(object_ids(reply.tree)[-1], dict(reply.objects))


def test_a_reply_is_made_of_real_objects_split_as_flower_splits_them() -> None:
    instruction = _asked()

    reply = reply_to(instruction, reply_content(_SIZE))

    assert sorted(object_ids(reply.tree)) == sorted(reply.objects)
    assert all(hashlib.sha256(body).hexdigest() == key for key, body in reply.objects.items())
    assert sum(len(body) > 1_000_000 for body in reply.objects.values()) == 3
    root = object_ids(reply.tree)[-1]
    inflated = inflate_object_from_contents(root, dict(reply.objects))
    assert isinstance(inflated, Message)
    assert get_object_tree(inflated).SerializeToString() == reply.tree
    assert inflated.metadata.reply_to_message_id == instruction.metadata.message_id
    assert inflated.metadata.src_node_id == 7
    assert inflated.metadata.dst_node_id == 1
    assert 3530 < inflated.metadata.ttl <= 3540.1
    assert reply.message.metadata.message_id == root
    assert reply.message.metadata.dst_task_id == 5


def test_no_two_replies_share_an_array() -> None:
    first, second = reply_content(1000), reply_content(1000)

    assert not set(first.objects) & set(second.objects)


async def test_every_call_carries_a_signature_of_its_own() -> None:
    key = Key()
    wire = GrpcWire("127.0.0.1:1", "1.33.0", key.public)
    key.sign_ahead(2)

    metadata: list[dict[str, Any]] = [dict(wire.metadata(key.proof())) for _ in range(3)]

    await wire.close()
    assert len({item["flwr-signature-bin"] for item in metadata}) == 3
    for item in metadata:
        timestamp = item["flwr-timestamp"].encode()
        public_key = bytes_to_public_key(item["flwr-public-key-bin"])
        assert verify_signature(public_key, timestamp, item["flwr-signature-bin"])
        assert item["flwr-component-name"] == "SuperNode"
        assert item["flwr-package-version"] == "1.33.0"


async def test_objects_move_in_order_two_at_a_time() -> None:
    started: asyncio.Queue[str] = asyncio.Queue()
    go_on = asyncio.Semaphore(0)

    async def work(item: str) -> None:
        started.put_nowait(item)
        await go_on.acquire()

    moving = asyncio.create_task(in_parallel("abc", work))
    assert [await started.get(), await started.get()] == ["a", "b"]
    assert started.empty()
    go_on.release()
    assert await started.get() == "c"
    go_on.release()
    go_on.release()
    await moving


async def test_a_node_signs_ahead_for_all_calls_of_an_exchange() -> None:
    node = SimulatedNode(
        lambda key: GrpcWire("127.0.0.1:1", "1.33.0", key), 1000, Tally(), verify=False
    )

    node.prepare()

    objects = len(reply_to(_asked(), reply_content(1000)).objects)
    pull_confirm_push = 3
    assert len(node._key._signed) >= 2 * objects + pull_confirm_push
    assert isinstance(node._key.proof(), Proof)
    await node._fleet.close()


def test_an_exchange_counts_only_if_every_node_sent_one_whole_reply() -> None:
    replies = [_reply(7), _reply(8)]

    assert check_replies(replies, [7, 8], 1000) == []

    with pytest.raises(ValueError, match="1 replies from 2 nodes"):
        check_replies(replies[:1], [7, 8], 1000)
    with pytest.raises(ValueError, match="replied twice"):
        check_replies([replies[0], replies[0]], [7, 8], 1000)
    with pytest.raises(ValueError, match="cut short"):
        check_replies(replies, [7, 8], 2000)
    with pytest.raises(ValueError, match="same reply"):
        copy = _reply(8)
        copy.content["arrays"] = replies[0].content["arrays"]
        check_replies([replies[0], copy], [7, 8], 1000)


def test_a_reply_that_the_server_gave_up_on_is_lost() -> None:
    asked = instruction(run_id=1, node_id=8, content=instruction_content(1000)).flwr
    gone = Message(Error(3, "node gone"), reply_to=asked)

    assert check_replies([_reply(7), gone], [7, 8], 1000) == ["node gone"]

    cell = Cell(times=[1.0], server_cpu=[1.0], lost=["node gone"])
    assert describe(cell) == "1.00 s (n=1), CPU 1.00 s, 1 replies LOST"


def test_cpu_is_told_by_part_and_in_sum() -> None:
    cell = Cell()

    cell.add_cpu({"gateway": 1.0, "nats": 2.0}, {"gateway": 3.0, "nats": 3.0, "other": 1.0}, per=2)

    assert cell.part_cpu == {"gateway": [1.0], "nats": [0.5], "other": [0.5]}
    assert cell.cpu == 2.0


def test_repeats_stop_when_the_time_is_up_but_not_before_the_first() -> None:
    scenario = Exchange("x", "x", (), repeats=3, budget=10)
    slow, fast = Cell(), Cell()

    for cell, seconds in ((slow, 20.0), (fast, 0.1)):
        for _ in scenario._repeats(cell):
            cell.times.append(seconds)

    assert len(slow.times) == 1
    assert len(fast.times) == 3


def test_a_promise_is_judged_by_medians_against_the_stock_target_it_names() -> None:
    goals = (Goal(1 / 2, "stock, in memory"), Goal(1 / 8, "stock, in memory", "cpu"))
    scenario = Exchange("x", "10 nodes", goals, edge_memory_limit=400_000_000)
    row = {
        "stock, in memory": Cell(times=[1, 10, 100], server_cpu=[8.0]),
        "flower-nats": Cell(
            times=[4.9],
            server_cpu=[2.0],
            memory={
                "gateway": Memory(pss=200_000_000, rss=250_000_000),
                "superlink": Memory(pss=100_000_000, rss=149_000_000),
                "postgres": Memory(pss=900_000_000, rss=900_000_000),
            },
        ),
    }

    time, cpu, memory = verdicts(scenario, row)

    assert str(time) == "met: 1/2.0 of stock, in memory (at most 1/2)"
    assert str(cpu) == "MISSED: 1/4.0 of stock, in memory (at most 1/8)"
    assert memory.met
    assert "300 MB PSS, 399 MB RSS" in memory.text


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    scenario = Exchange("x", "10 nodes", (Goal(1 / 2, "stock, in memory"),))
    row = {
        "stock, in memory": Cell(failure="it broke"),
        "flower-nats": Cell(times=[1.0], server_cpu=[1.0]),
    }

    assert verdicts(scenario, row) == []
    line = table([(scenario, row)], TARGETS).splitlines()[-1]
    assert line == "| 10 nodes | failed | 1.00 s (n=1), CPU 1.00 s |  |"


def test_an_exchange_that_was_given_up_counts_as_long_as_it_had() -> None:
    scenario = Exchange("x", "500 nodes", (Goal(1 / 10, "stock, in memory"),))
    given_up = Cell(unfinished=200.0, server_cpu=[150.0])
    row = {"stock, in memory": given_up, "flower-nats": Cell(times=[8.0], server_cpu=[8.0])}

    (verdict,) = verdicts(scenario, row)

    assert describe(given_up) == "not done after 200 s"
    assert str(verdict) == "met: less than 1/25.0 of stock, in memory (at most 1/10)"
    assert not verdicts(scenario, {"stock, in memory": row["flower-nats"], _OURS: given_up})[0].met


def test_promises_without_stock_are_judged_by_a_limit_and_by_another_line() -> None:
    idle = Exchange("idle", "idle", (Ceiling(1 / 15),))
    ten = Exchange("ten", "10 nodes", ())
    hundred = Exchange("hundred", "100 nodes", (Growth(5, "ten"),))
    row = {_OURS: Cell(times=[9.0], server_cpu=[0.05])}
    others = [(ten, {_OURS: Cell(times=[1.5], server_cpu=[1.0])}), (hundred, row)]

    assert str(verdicts(idle, row)[0]) == "met: 0.050 (at most 0.067)"
    assert str(verdicts(hundred, row, others)[0]) == "MISSED: 6.0 times ten (at most 5.0)"
    assert verdicts(hundred, row) == []


def test_plans_promise_only_what_they_measure() -> None:
    measured = {target.name for target in TARGETS}
    for lines in (*FULL.values(), *QUICK.values()):
        for line in lines:
            than = {goal.than for goal in line.goals if isinstance(goal, Goal)}
            other = {goal.line for goal in line.goals if isinstance(goal, Growth)}
            assert than <= measured - set(line.skip)
            assert other <= {one.name for one in lines}


def _as_if_made(folder: Path, version: str) -> None:
    (folder / version).mkdir()
    (folder / version / "complete").touch()


def test_lines_are_chosen_by_name_wire_and_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    newest = VERSIONS[HTTP]
    for version in ("1.33.0", "1.41.0", newest):
        _as_if_made(tmp_path, version)

    def chosen(*arguments: str) -> list[tuple[str, str, list[str]]]:
        parts = plan(parse(list(arguments)))
        return [
            (str(one.flower.version), wire_of(one.flower.version), [x.name for x in one.lines])
            for one in parts
        ]

    assert chosen("bulk") == [("1.33.0", GRPC, ["bulk"]), (newest, HTTP, ["bulk"])]
    assert chosen("bulk-1gb") == [(newest, HTTP, ["bulk-1gb"])]
    assert chosen("--wire", "grpc", "bulk", "log") == [("1.33.0", GRPC, ["bulk", "log"])]
    assert chosen("--flwr", "1.41.0", "log") == [("1.41.0", HTTP, ["log"])]
    assert [len(lines) for _, _, lines in chosen()] == [len(FULL[wire]) for wire in WIRES]
    with pytest.raises(NotMeasured, match=r"1\.36\.0 is not measured"):
        wire_of("1.36.0")


def test_processes_are_told_apart_by_their_command_lines(tmp_path: Path) -> None:
    python = ["/venv/bin/python", "-P", "-m", "flower_nats_cli.main"]

    assert part_of([*python, "gateway", "--insecure"]) == "gateway"
    assert part_of([*python, "superlink", "--isolation"]) == "superlink"
    for version in VERSIONS.values():
        flower = Flower(Environment(Version(version), tmp_path / "bin"))
        stock = StockInMemory(tmp_path, flower).command()
        assert part_of(["/venv/bin/python", *stock]) == "superlink"
        assert part_of(FlowerNats(tmp_path, flower).command()) is None
    assert part_of(["/venv/bin/nats-server", "-c", "nats.conf"]) == "nats"
    assert part_of(["/pg/bin/postgres", "-D", "data"]) == "postgres"
    assert part_of(["postgres: checkpointer"]) is None


def test_a_worker_answers_and_ends_with_its_input(tmp_path: Path) -> None:
    arguments = {
        "wire": HTTP,
        "version": "1.42.0",
        "address": free_address(),
        "certificate": None,
        "nodes": 1,
        "reply_size": 1000,
    }

    with Worker("loadgen", arguments, tmp_path / "log") as worker:
        worker.ask("prepare", 60)
        assert worker.ask("tally", 60)["calls"] == {}
        assert worker.cpu_seconds() > 0

    assert worker.child.process.returncode == 0


def test_a_worker_that_cannot_do_its_work_says_why(tmp_path: Path) -> None:
    with (
        Worker("loadgen", {}, tmp_path / "log") as worker,
        pytest.raises(ChildFailed, match="required positional argument"),
    ):
        worker.ask("tally", 60)


def test_a_worker_that_does_not_answer_in_time_is_too_slow(tmp_path: Path) -> None:
    with (
        Worker("stock.serverapp", {}, tmp_path / "log") as worker,
        pytest.raises(TooSlow, match="no answer to 'start' in 0 s"),
    ):
        worker.ask("start", 0)


def test_a_profile_leaves_out_those_who_wait() -> None:
    stacks = """\
main (click/core.py:1);serve (gateway/fleet.py:1);check (wire/messages.py:2) 300
main (click/core.py:1);serve (gateway/fleet.py:1) 100
main (click/core.py:1);EpollSelector.select (selectors.py:468) 9000
"""

    lines = [line.strip() for line in top(stacks).splitlines()]

    assert lines[0] == "2.0 s sampled"
    assert lines[2] == "75.0%  check (wire/messages.py:2)"
    assert lines[5] == "100.0%  serve (gateway/fleet.py:1)"
    assert not [line for line in lines if "click" in line or "select" in line]
