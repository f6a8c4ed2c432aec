"""Questions of operator commands to superlinks, except those that end or delete something.

Gateways may not ask them: NATS allows only the operator's login (`broker.permissions`).
"""

from collections.abc import Mapping
from typing import Any

from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.progress import Progress
from flower_nats.logs import get_logger
from flower_nats.model.app_signature import BadAppSignature, read_app_signature
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.store.connection import Database
from flower_nats.store.fabs import Fabs
from flower_nats.superlink.codecs import InternalHandler
from flower_nats.superlink.operators.run_report import RunReport
from flower_nats.superlink.operators.status_report import StatusReport

log = get_logger(__name__)

Map = Mapping[str, Any]


class OperatorQuestions:
    """Serves `flower-nats status` and `flower-nats app accept`."""

    def __init__(self, database: Database, mailbox: Mailbox, overview: StatusReport) -> None:
        self._overview = overview
        self._run_report = RunReport(database, Progress(mailbox))
        self._fabs = Fabs(database)

    def handlers(self) -> Mapping[str, InternalHandler]:
        """Return the handler of each RPC served here."""
        return {
            "Status": self.status,
            "RunReport": self.run_report,
            "AddAppSignature": self.add_app_signature,
        }

    async def status(self, question: Map, caller: Caller) -> Map:
        """{} -> the result of `StatusReport.report`, for `flower-nats status`."""
        return await self._overview.report()

    async def run_report(self, question: Map, caller: Caller) -> Map:
        """{run_id} -> {now, run, task, exchanges}: for `flower-nats status --run`."""
        return await self._run_report.report(question["run_id"])

    async def add_app_signature(self, question: Map, caller: Caller) -> Map:
        """{signature} -> {}: store a signature, which nodes get with its FAB."""
        try:
            signature = read_app_signature(question["signature"])
        except BadAppSignature as exc:
            raise ApiError(ErrorCode.MALFORMED_REQUEST, str(exc)) from exc
        await self._fabs.sign(signature)
        log.info("app_signature_added", fab_hash=signature.fab_hash, key_id=signature.key_id)
        return {}
