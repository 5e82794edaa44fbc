"""A plain gRPC server that sleeps as long as it is asked to; prints its port."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc


class _Sleeper(grpc.GenericRpcHandler):
    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(_sleep)


def _sleep(request: bytes, context: Any) -> bytes:
    time.sleep(float(request))
    return request


server = grpc.server(ThreadPoolExecutor(64))
server.add_generic_rpc_handlers((_Sleeper(),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(f"port {port}", flush=True)
server.wait_for_termination()
