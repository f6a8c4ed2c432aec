"""Ends runs for a reason outside of the runs."""

from collections.abc import Iterable

from flower_nats.model.run import Run
from flower_nats.model.states import SubStatus
from flower_nats.model.task import Finished
from flower_nats.store.connection import Transaction
from flower_nats.store.runs import Runs
from flower_nats.store.tasks import Tasks


async def stop_runs(
    transaction: Transaction, federation: str, account_id: str | None = None
) -> list[Finished]:
    """Stop the runs of a federation, or those that one account started in it."""
    runs = await Runs(transaction).unfinished_in(federation, account_id)
    return await end_runs(transaction, runs, SubStatus.STOPPED, "")


async def end_runs(
    transaction: Transaction, runs: Iterable[Run], sub_status: SubStatus, details: str
) -> list[Finished]:
    """End runs with all their tasks; return the ends, for `Lifecycle.task_finished`."""
    tasks = Tasks(transaction)
    ended = [await tasks.finish(run.primary_task_id, sub_status, details) for run in runs]
    return [finished for finished in ended if finished is not None]
