"""The Control API as the ``flwr`` command calls it, on either wire."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf.message import Message as ProtoMessage

from benchmarks.app import nothing_fab
from benchmarks.fleet import Refused, version_headers
from benchmarks.http_client import tls_context
from benchmarks.wire_http import HEADERS
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire.methods import BY_NAME, Method
from harness.flower import GRPC

_PATIENCE = 30.0
_OK = 200


class Control:
    """The calls of the ``flwr`` command."""

    def __init__(self, wire: str, version: str, address: str, certificate: str | None) -> None:
        self._wire = wire
        self._address = address
        self._headers = version_headers(version, "flwr CLI")
        self._tls = tls_context(certificate)

    def start_run(self) -> int:
        """Submit the app that does nothing and return the run's id."""
        content = nothing_fab()
        fab = common.Fab(hash_str=hashlib.sha256(content).hexdigest(), content=content)
        answer = self._call("StartRun", control.StartRunRequest(fab=fab))
        if not answer.HasField("run_id"):
            raise Refused(f"StartRun: {answer.note}")
        return int(answer.run_id)

    def run_status(self, run_id: int) -> common.RunStatus:
        """Return the status of a run."""
        answer = self._call("ListRuns", control.ListRunsRequest(run_id=run_id))
        status: common.RunStatus = answer.run_dict[run_id].status
        return status

    def online_nodes(self) -> int:
        """Return the number of online SuperNodes."""
        answer = self._call("ListNodes", control.ListNodesRequest())
        return sum(node.status == "online" for node in answer.nodes_info)

    def logs(self, run_id: int) -> Iterator[str]:
        """Follow a run's log as ``flwr log --stream`` does."""
        method = BY_NAME["Control", "StreamLogs"]
        body = control.StreamLogsRequest(run_id=run_id).SerializeToString()
        stream = self._grpc_stream if self._wire == GRPC else self._http_stream
        for answer in stream(method, body):
            yield answer.log_output

    def _call(self, name: str, request: ProtoMessage) -> Any:
        method, body = BY_NAME["Control", name], request.SerializeToString()
        return (self._grpc_call if self._wire == GRPC else self._http_call)(method, body)

    def _grpc_call(self, method: Method, body: bytes) -> Any:
        with grpc.insecure_channel(self._address) as channel:
            call: Any = channel.unary_unary(method.path)
            try:
                answer = call(body, metadata=self._headers, timeout=_PATIENCE, wait_for_ready=True)
            except grpc.RpcError as exc:
                raise Refused(f"{method.name}: {exc}") from exc
        return method.response.FromString(answer)

    def _grpc_stream(self, method: Method, body: bytes) -> Iterator[Any]:
        with grpc.insecure_channel(self._address) as channel:
            call: Any = channel.unary_stream(method.path)
            for answer in call(body, metadata=self._headers):
                yield method.response.FromString(answer)

    def _http_call(self, method: Method, body: bytes) -> Any:
        answer = self._post(method, body)
        return method.response.FromString(answer.read())

    def _http_stream(self, method: Method, body: bytes) -> Iterator[Any]:
        answer = self._post(method, body)
        while head := answer.read(4):
            yield method.response.FromString(answer.read(int.from_bytes(head, "big")))

    def _post(self, method: Method, body: bytes) -> http.client.HTTPResponse:
        connection = (
            http.client.HTTPSConnection(self._address, timeout=_PATIENCE, context=self._tls)
            if self._tls
            else http.client.HTTPConnection(self._address, timeout=_PATIENCE)
        )
        headers = {**dict(HEADERS), **dict(self._headers), "x-flwr-client": "cli"}
        if method.streams:
            headers["accept"] = "application/flower-protobuf-stream"
            headers["accept-encoding"] = "identity"
        connection.request("POST", method.http_path, body, headers)
        answer = connection.getresponse()
        if answer.status != _OK:
            raise Refused(f"{method.name}: {answer.status} {answer.read(300)!r}")
        return answer
