"""The server around the services: health, reflection, addresses, and the end of a service."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from slipway.v1 import container_service_pb2 as pb2
from slipway.v1 import container_service_pb2_grpc as pb2_grpc
from slipway.v1 import system_service_pb2 as system_pb2

from api_service.server import request_rules, serve
from api_service.store.sqlite_store import SqliteStore
from common.errors import FailedPrecondition
from common.identity import Role
from common.tls import TlsSource
from tests.fixtures.api import Api, refused, running_api
from tests.fixtures.certificates import Authority
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.store import ON_ETCD

SERVICES = ["slipway.v1.ContainerService", "slipway.v1.ImageService", "slipway.v1.SystemService"]


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_health(api: Api, service: str) -> None:
    check = api.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    answer = await check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_knows_every_service(api: Api) -> None:
    ask = api.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [reflection_pb2.ServerReflectionRequest(list_services="")]
    requests += [reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in SERVICES]
    answers = [answer async for answer in ask(iter(requests))]
    assert {service.name for service in answers[0].list_services_response.service} >= set(SERVICES)
    assert all(answer.file_descriptor_response.file_descriptor_proto for answer in answers[1:])


async def test_address_that_somebody_serves(api: Api) -> None:
    with pytest.raises(FailedPrecondition, match="another program serves it; stop that, or choose another") as caught:
        async with serve(api.engine, request_rules(), [api.address], grace=0, max_calls=1):
            raise AssertionError("it serves")
    assert caught.value.reason == "ADDRESS_IN_USE"
    assert await api.names() == []  # the first one still does


async def test_port_that_is_taken(api: Api) -> None:
    listening = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(FailedPrecondition, match=f"cannot listen on 127.0.0.1:{port}: ") as caught:
            async with serve(api.engine, request_rules(), [f"127.0.0.1:{port}"], grace=0, max_calls=1):
                raise AssertionError("it serves")
    assert caught.value.reason == "ADDRESS_IN_USE"


async def test_port_of_another_such_service(api: Api) -> None:
    """The kernel would let both listen and deal the calls out among them."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    async with serve(api.engine, request_rules(), [address], grace=0, max_calls=1):
        with pytest.raises(FailedPrecondition, match=f"cannot listen on {address}: "):
            async with serve(api.engine, request_rules(), [address], grace=0, max_calls=1):
                raise AssertionError("both serve")


async def test_socket_nobody_serves_is_replaced(tmp_path: Path, executor: FakeExecutor) -> None:
    listening = await asyncio.start_unix_server(lambda *_: None, tmp_path / "api.sock")
    listening.close()
    await listening.wait_closed()
    async with running_api(tmp_path, executor) as api:
        assert await api.names() == []


@pytest.mark.skipif(ON_ETCD, reason="any number of services may have the store of a cluster")
async def test_second_service_over_the_same_state(tmp_path: Path, api: Api) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        async with SqliteStore(tmp_path / "api.db"):
            raise AssertionError("it is open")
    assert caught.value.reason == "DATABASE_IN_USE"


async def test_endless_calls_end_with_the_service(tmp_path: Path, executor: FakeExecutor) -> None:
    async with AsyncExitStack() as client:
        async with running_api(tmp_path, executor) as api:
            await api.load()
            await api.run(name="web")
            channel = await client.enter_async_context(grpc.aio.insecure_channel(api.address))
            # Each as a stream: the headers of a unary call come with its answer only.
            requests: dict[str, Message] = {
                "SystemService/StreamEvents": system_pb2.StreamEventsRequest(),
                "ContainerService/WaitContainer": pb2.WaitContainerRequest(container="web"),
            }
            calls: list[Any] = [
                channel.unary_stream(f"/slipway.v1.{method}", request_serializer=type(request).SerializeToString)(
                    request
                )
                for method, request in requests.items()
            ]
            for call in calls:
                await call.initial_metadata()
            logs = pb2_grpc.ContainerServiceStub(channel).StreamLogs(
                pb2.StreamLogsRequest(container="web", follow=True)
            )
            await executor.until(lambda: executor.streams == 1)
        for pending in (*calls, logs):
            refusal = await refused(anext(aiter(pending)))
            assert refusal.code == grpc.StatusCode.UNAVAILABLE
            assert (refusal.reason, refusal.retry_after) == ("STOPPING", 1.0)


async def test_tcp_with_certificates_and_the_socket_without(api: Api, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = TlsSource(authority.files(authority.certify(Role.API, "api1"), directory="api"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    addresses = [f"127.0.0.1:{port}", f"unix://{tmp_path}/tls.sock"]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serve(api.engine, request_rules(), addresses, grace=0, max_calls=9, tls=tls))

        async def using(channel: grpc.aio.Channel, address: str) -> Api:
            await stack.enter_async_context(channel)
            return Api(engine=api.engine, address=address, channel=channel, executor=api.executor)

        reader = authority.certify(Role.READER, "ann", hosts=())
        named = await using(authority.channel(reader, f"localhost:{port}"), addresses[0])
        assert await named.names() == []
        refusal = await refused(named.create(name="web"))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_NOT_ALLOWED")
        plain = await using(grpc.aio.insecure_channel(addresses[0]), addresses[0])
        assert (await refused(plain.names())).code == grpc.StatusCode.UNAVAILABLE
        local = await using(grpc.aio.insecure_channel(addresses[1]), addresses[1])
        await local.create(name="web")
        assert await named.names() == ["web"]


async def test_more_calls_than_allowed(api: Api, tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/small.sock"
    service = serve(api.engine, request_rules(), [address], grace=0, max_calls=1)
    async with service, grpc.aio.insecure_channel(address) as channel:
        small = Api(engine=api.engine, address=address, channel=channel, executor=api.executor)
        stream = small.system.StreamEvents(system_pb2.StreamEventsRequest())
        await stream.initial_metadata()
        assert (await refused(small.inspect("x"))).code == grpc.StatusCode.RESOURCE_EXHAUSTED
        stream.cancel()
