"""The figures of a chaos run; `report` prints them."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.chaos.kills import Fault
from benchmarks.chaos.load import Load, Run
from benchmarks.chaos.recovery import Recovery, longest_wait, recoveries
from harness import app

_COMPLETED = "finished:completed"


@dataclass
class Result:
    """The figures of one server under chaos."""

    name: str
    seconds: float
    """From the first submission until the last run has ended or was given up."""

    faults: list[Fault]
    failed_starts: int
    """Starts of killed processes that failed at first."""

    runs: int
    completed: int
    """Runs that ended `finished:completed` with the result of a run without faults."""

    pushed: int
    """Messages that the server took."""

    outcomes: int
    """The number of these messages with a reply or an error reply."""

    error_replies: int
    doubles: int
    """Messages with more than one outcome."""

    repeated: int
    """Instructions that a node received again after it had confirmed them."""

    broken_logs: int
    """Logs that a follower or a later reader did not get whole and in order."""

    logs_broken_off: int
    """Runs whose `flwr log --stream` broke off and had to be called again."""

    refused: int
    """Runs for which `flwr run` had to be called again."""

    deaths: list[str]
    """Why client processes ended that should have lived."""

    losses: list[str]
    """Work that nodes gave up."""

    nodes_gone: list[int]
    """Nodes that were taken offline."""

    calls: int
    retries: int
    recoveries: list[Recovery]
    longest_wait: float
    """The longest wait of a call in seconds, from the first kill that the call is charged to."""

    rounds: list[float]
    """The seconds of each round."""

    troubles: list[str] = field(default_factory=list)
    """The reason for every run that did not complete."""

    @property
    def lost(self) -> int:
        """Messages without any outcome."""
        return self.pushed - self.outcomes

    @property
    def is_whole(self) -> bool:
        """Whether every invariant held, without regard to times."""
        return (
            self.completed == self.runs
            and not (self.lost or self.doubles or self.error_replies or self.broken_logs)
            and not (self.deaths or self.losses or self.nodes_gone)
        )


def result(
    name: str, seconds: float, faults: list[Fault], failed_starts: int, load: Load, gone: list[int]
) -> Result:
    """Count what has happened."""
    apps = [run.app for run in load.runs]
    troubles = [_trouble(run) for run in load.runs]
    spans = [span for one in apps for span in one.spans]
    return Result(
        name=name,
        seconds=seconds,
        faults=faults,
        failed_starts=failed_starts,
        runs=len(apps),
        completed=sum(not trouble for trouble in troubles),
        pushed=sum(len(one.pushed) for one in apps),
        outcomes=sum(len(one.pushed & one.outcomes.keys()) for one in apps),
        error_replies=sum(len(one.errors) for one in apps),
        doubles=sum(len(_doubles(run)) for run in load.runs),
        repeated=sum(len(one.confirmed) - len(set(one.confirmed)) for one in load.nodes),
        broken_logs=sum(_is_broken(run) for run in load.runs),
        logs_broken_off=sum(any(log.ends for log in run.logs) for run in load.runs),
        refused=sum(run.refusals > 0 for run in load.runs),
        deaths=[
            *(f"ServerApp of run {one.run_id}: {one.death}" for one in apps if one.death),
            *(f"SuperNode {one.number}: {one.death}" for one in load.everybody if one.death),
        ],
        losses=[f"SuperNode {one.number}: {loss}" for one in load.everybody for loss in one.losses],
        nodes_gone=gone,
        calls=len(load.calls),
        retries=sum(call.tries - 1 for call in load.calls),
        recoveries=recoveries(faults, load.calls),
        longest_wait=longest_wait(faults, load.calls),
        rounds=[to - since for since, to in spans],
        troubles=[trouble for trouble in troubles if trouble],
    )


def _trouble(run: Run) -> str:
    """Return what is wrong with a run; empty for a completed run."""
    one, wrong = run.app, []
    if run.status != _COMPLETED:
        wrong.append(run.status)
    if run.given_up:
        wrong.append(run.given_up)
    if one.death:
        wrong.append(f"ServerApp died: {one.death}")
    if one.errors:
        wrong.append(f"{len(one.errors)} error replies, first {one.errors[0]}")
    if one.value != app.expected((node.number for node in run.nodes), one.rounds):
        wrong.append("another result than without faults")
    return f"run {one.run_id}: " + ", ".join(wrong) if wrong else ""


def _doubles(run: Run) -> set[str]:
    often = {asked for asked, count in run.app.outcomes.items() if count > 1}
    return often | {second.partition(":")[0] for second in run.app.seconds}


def _is_broken(run: Run) -> bool:
    return any(log.text != run.app.log for log in run.logs)
