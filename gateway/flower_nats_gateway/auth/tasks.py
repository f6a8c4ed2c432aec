"""Tasks, by their token; and SuperExecs, by the secret that they share with gateways."""

from pathlib import Path

from flower_nats.broker.pushers import run_pusher
from flower_nats.broker.rpc import RpcClient
from flower_nats.model.caller import Caller
from flower_nats.model.ids import token_hash
from flower_nats.wire.methods import CallerKind
from flower_nats_gateway.auth.identify import Identify, certainly
from flower_nats_gateway.auth.superexec import SuperexecProof, failed
from flower_nats_gateway.calls.call import Call
from flower_nats_gateway.cluster.directory import Directory, Task
from flower_nats_gateway.cluster.superexecs_heard import SuperexecsHeard
from flower_nats_gateway.runlog.pending import PendingLines

TASK_TOKEN = "flwr-task-token"


class RuntimeAuthenticator:
    """Tasks send their token; SuperExecs prove the shared secret, if there is one."""

    def __init__(
        self,
        directory: Directory,
        pending_lines: PendingLines,
        rpc: RpcClient,
        secret_file: Path | None,
        superexecs: SuperexecsHeard,
    ) -> None:
        self._directory = directory
        self._pending_lines = pending_lines
        self._superexec = SuperexecProof(rpc, secret_file, superexecs)

    async def __call__(self, call: Call) -> Identify:
        """Check which task, or that a SuperExec, makes this call."""
        if call.method.caller is CallerKind.SUPEREXEC:
            return await self._superexec.check(call)
        token = call.text(TASK_TOKEN)
        task_token = token_hash(token)
        task = await self._task(call, task_token) if token else None
        if task is None or (task.finished and not call.method.farewell):
            raise failed("no task has this token" if task is None else "this task is finished")
        call.pusher = run_pusher(task.run_id)
        return certainly(
            Caller(
                task_id=task.task_id,
                run_id=task.run_id,
                task_type=task.type,
                task_token=task_token,
            )
        )

    async def _task(self, call: Call, task_token: bytes) -> Task | None:
        asking = self._directory.task(task_token)
        if call.method.name == "PushLogs":
            asking = self._pending_lines.until_known(asking)
        return await asking
