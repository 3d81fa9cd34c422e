"""Ask services whether they serve: `python -m common.healthcheck [--wait SECONDS] ADDRESS …`; exit 0 when all do.

An address is gRPC's: `127.0.0.1:50051` or `unix:///run/slipway/api.sock`. With `--wait` an address that does not answer
is asked again until the time is over. Source: https://grpc.io/docs/guides/health-checking/
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import grpc
from grpc_health.v1 import health_pb2


async def serving(address: str, *, wait: float, timeout: float = 5) -> bool:
    """Whether the service at `address` says SERVING within `wait` seconds (0: at once)."""
    deadline = asyncio.get_running_loop().time() + wait
    # gRPC's own reconnect backoff starts at a second; somebody who waits for a start wants to know sooner.
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        while True:
            try:
                answer = await check(
                    health_pb2.HealthCheckRequest(), timeout=max(timeout, wait), wait_for_ready=wait > 0
                )
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return True
            except grpc.aio.AioRpcError as error:
                print(f"{address}: {error.details()}", file=sys.stderr)  # noqa: T201 - a command's output
            if asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(0.05)


async def _all_serve(addresses: list[str], wait: float) -> bool:
    return all(await asyncio.gather(*(serving(address, wait=wait) for address in addresses)))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m common.healthcheck", description="Ask services whether they serve."
    )
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="keep asking for this long")
    parser.add_argument("addresses", nargs="+", metavar="ADDRESS")
    arguments = parser.parse_args()
    return 0 if asyncio.run(_all_serve(arguments.addresses, arguments.wait)) else 1


if __name__ == "__main__":
    sys.exit(main())
