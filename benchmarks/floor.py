"""The lowest cost of a call: CPU of a Python gRPC server that only echoes, and of a signature.

    python -m benchmarks.floor

Calls that come all at once share wake-ups; calls that come singly do not. An exchange makes calls
all at once; an idle federation makes them singly.
"""

import asyncio
import subprocess
import sys
import time
from typing import Any

import grpc
import grpc.aio
import psutil
import uvloop
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flower_nats_gateway.auth.signatures import check

_CONNECTIONS = 200
_SINGLY = 1000
_AT_ONCE = 10_000
_PER_SECOND = 70
"""Single calls in a second: about as many as 1,000 idle nodes make."""
_BODY = bytes(300)


class _Echo(grpc.GenericRpcHandler):
    def service(self, _details: grpc.HandlerCallDetails) -> Any:
        async def echo(request: bytes, _context: Any) -> bytes:
            return request

        return grpc.unary_unary_rpc_method_handler(echo)


async def _serve() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Echo(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    # The server ends when the process that started it closes the pipe.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def _measure(port: int, server: psutil.Process) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) for _ in range(_CONNECTIONS)
    ]
    calls: list[Any] = [channel.unary_unary("/floor/Echo") for channel in channels]
    for call in calls:
        await call(_BODY)

    async def singly() -> None:
        for number in range(_SINGLY):
            await calls[number % _CONNECTIONS](_BODY)
            await asyncio.sleep(1 / _PER_SECOND)

    async def at_once() -> None:
        async def repeat(call: Any) -> None:
            for _ in range(_AT_ONCE // _CONNECTIONS):
                await call(_BODY)

        await asyncio.gather(*map(repeat, calls))

    for name, work, count in (
        (f"{_PER_SECOND} a second", singly, _SINGLY),
        ("as many as it can", at_once, _AT_ONCE),
    ):
        before = server.cpu_times()
        await work()
        after = server.cpu_times()
        spent = after.user + after.system - before.user - before.system
        print(f"gRPC that echoes, {name}: {spent / count * 1e3:.2f} ms of CPU a call")
    for channel in channels:
        await channel.close()


def _signature() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signature = key.sign(_BODY, ec.ECDSA(hashes.SHA256()))
    check(pem, _BODY, signature)
    count = 2000
    began = time.process_time()
    for _ in range(count):
        assert check(pem, _BODY, signature)
    spent = time.process_time() - began
    print(f"A P-384 signature, verified: {spent / count * 1e3:.2f} ms of CPU")


def main() -> None:
    """Measure, and print."""
    if sys.argv[1:] == ["--serve"]:
        uvloop.run(_serve())
        return
    command = [sys.executable, "-m", "benchmarks.floor", "--serve"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        uvloop.run(_measure(int(server.stdout.readline()), psutil.Process(server.pid)))
        assert server.stdin is not None
        server.stdin.close()
    _signature()


if __name__ == "__main__":
    main()
