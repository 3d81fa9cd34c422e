"""The connection to an executor: over a unix socket as it is, to another machine with certificates on both sides.

gRPC takes a client's certificate when a channel is made. When the files have changed, later calls go through a new
channel; the old one is closed when the last of its calls has ended, or at once when an authority was taken away: then
the peer may be one that is not to be believed any more. So it is when the certificate ends that the peer showed; one
that has another by then gets the calls of the last minute before over a new connection.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import grpc
import structlog

from api_service.executor_grpc.peer import NotThePeer, certified_until
from common.addresses import is_unix
from common.errors import FailedPrecondition
from common.identity import Identity, Role
from common.tls import TlsMaterial, TlsSource, channel_credentials

_log = structlog.get_logger(__name__)

Options = Sequence[tuple[str, Any]]

_BETWEEN_MACHINES: Options = (
    # Which gRPC also takes for the time that a connection may take to be made: three round trips and two signatures.
    ("grpc.min_reconnect_backoff_ms", 2_000),
)
_LOOK_EVERY = 5.0  # seconds; also when nothing is called, as calls may last
_RENEWED_BEFORE = timedelta(minutes=1)  # the end of the peer's certificate


def open_channel(*, node: str, address: str, tls: TlsSource | None, options: Options) -> grpc.aio.Channel:
    """To the executor of that node, and to no other: the handshake fails when the peer's certificate is not that node's
    as its executor. Raises FailedPrecondition (reason `TLS_REQUIRED`)."""
    if is_unix(address):
        return grpc.aio.insecure_channel(address, options=options)
    if tls is None:
        raise FailedPrecondition(
            f"node {node!r} at {address}: executors on other machines are dialled with TLS only; give this service "
            "tls_cert, tls_key and tls_ca",
            reason="TLS_REQUIRED",
        )
    try:
        name = Identity(name=node, role=Role.EXECUTOR).dns_name
    except ValueError as error:
        raise FailedPrecondition(f"node {node!r} cannot have a certificate: {error}", reason="TLS_REQUIRED") from error
    between = {**dict(options), **dict(_BETWEEN_MACHINES), "grpc.ssl_target_name_override": name}
    return RenewedChannel(node, name, address, tls, list(between.items()))


class _Generation:
    """One channel, until its certificate is no longer the current one and the last call over it has ended.
    `peer_until`: when the certificate ends that the peer showed, as soon as that is known."""

    def __init__(self, material: TlsMaterial, channel: grpc.aio.Channel, *, peer_until: datetime | None) -> None:
        self.material = material
        self.channel = channel
        self.peer_until = peer_until
        self.calls = 0
        self._made: dict[str, Callable[..., Any]] = {}

    def callable_for(self, kind: str, method: str, *codec: Any, **more: Any) -> Callable[..., Any]:
        if method not in self._made:
            self._made[method] = getattr(self.channel, kind)(method, *codec, **more)
        return self._made[method]


class RenewedChannel(grpc.aio.Channel):
    def __init__(self, node: str, name: str, address: str, tls: TlsSource, options: Options) -> None:
        self._node = node
        self._name = name
        self._address = address
        self._tls = tls
        self._options = options
        self._current = self._open(tls.current())
        self._closing: set[asyncio.Task[None]] = set()
        self._retired: set[_Generation] = set()
        self._looking = asyncio.get_running_loop().create_task(self._look_forever())

    def _open(self, material: TlsMaterial, *, peer_until: datetime | None = None) -> _Generation:
        channel = grpc.aio.secure_channel(self._address, channel_credentials(material), options=self._options)
        return _Generation(material, channel, peer_until=peer_until)

    def _generation(self) -> _Generation:
        if (material := self._tls.current()) is not self._current.material:
            _log.info("dialling with another certificate", node=self._node, address=self._address)
            self._go_on_with(self._open(material))
            trusted = set(material.authorities)
            for generation in tuple(self._retired):
                if not trusted.issuperset(generation.material.authorities):
                    self._close(generation)
        return self._current

    def _go_on_with(self, generation: _Generation) -> None:
        before, self._current = self._current, generation
        self._retired.add(before)
        if before.calls == 0:
            self._close(before)

    async def _look_forever(self) -> None:
        # A thousand channels may have been made together, and each look may be a handshake.
        await asyncio.sleep(random.uniform(0, _LOOK_EVERY))  # noqa: S311 - nobody is to be kept from guessing it
        while True:
            try:
                self._generation()
                await self._look_at_peer()
            except Exception as error:
                # A bug must not end the looking for good.
                _log.error("certificates could not be looked at", node=self._node, exc_info=error)
            await asyncio.sleep(_LOOK_EVERY)

    async def _look_at_peer(self) -> None:
        current = self._current
        connected = current.channel.get_state() is grpc.ChannelConnectivity.READY
        soon = datetime.now(UTC) + _RENEWED_BEFORE
        if connected and (current.peer_until is None or current.peer_until < soon):
            until = await self._peer_until(current.material)
            for generation in (current, *self._retired):
                if generation.peer_until is None:
                    generation.peer_until = until
            if until is not None and current is self._current and (current.peer_until or until) < until:
                _log.info("the node has another certificate", node=self._node, until=until.isoformat())
                self._go_on_with(self._open(current.material, peer_until=until))
        self._end_expired()

    async def _peer_until(self, material: TlsMaterial) -> datetime | None:
        """None when it is not to be learned now; the past when whoever is there is not the node."""
        try:
            return await certified_until(self._address, name=self._name, material=material)
        except NotThePeer as error:
            _log.warning("the node's certificate is no good", node=self._node, error=str(error))
            return datetime.min.replace(tzinfo=UTC)
        except OSError:
            return None

    def _end_expired(self) -> None:
        now = datetime.now(UTC)
        if self._current.peer_until is not None and self._current.peer_until < now:
            self._go_on_with(self._open(self._current.material))
        for generation in tuple(self._retired):
            if generation.peer_until is not None and generation.peer_until < now:
                _log.warning("a connection ends with the node's certificate", node=self._node)
                self._close(generation)

    def _close(self, generation: _Generation) -> None:
        """Its calls, if there are any, are cancelled; NodeCalls tells that from a cancellation of the caller."""
        self._retired.discard(generation)
        task = asyncio.get_running_loop().create_task(generation.channel.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _calls(self, kind: str, method: str, *codec: Any, **more: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            generation = self._generation()
            begun = generation.callable_for(kind, method, *codec, **more)(*arguments, **options)
            generation.calls += 1

            def ended(_: object) -> None:
                generation.calls -= 1
                if generation.calls == 0 and generation in self._retired:
                    self._close(generation)

            begun.add_done_callback(ended)
            return begun

        return call

    def unary_unary(self, method: str, *codec: Any, **more: Any) -> Any:
        return self._calls("unary_unary", method, *codec, **more)

    def unary_stream(self, method: str, *codec: Any, **more: Any) -> Any:
        return self._calls("unary_stream", method, *codec, **more)

    def stream_unary(self, method: str, *codec: Any, **more: Any) -> Any:
        return self._calls("stream_unary", method, *codec, **more)

    def stream_stream(self, method: str, *codec: Any, **more: Any) -> Any:
        return self._calls("stream_stream", method, *codec, **more)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        self._looking.cancel()
        generations, self._retired = [self._current, *self._retired], set()
        await asyncio.gather(*(each.channel.close(grace) for each in generations), *self._closing)

    def connect_anew(self) -> None:
        """Later calls go over a new connection: this one may be to a machine that was gone, and not know it yet."""
        self._go_on_with(self._open(self._current.material, peer_until=self._current.peer_until))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """`try_to_connect`: at once. After an attempt that has failed gRPC would wait, or for an answer that was lost
        meanwhile."""
        if try_to_connect and self._current.channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            self.connect_anew()
        return self._current.channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._current.channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._current.channel.channel_ready()
