"""Sandboxes of this node that stand ready before anybody asks: finished ones on the default network, and bare ones,
whose interface only has to be put on a network."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial

from common.sqlite import Database
from executor_service.container import EndpointSpec, NetworkMode
from executor_service.network import records
from executor_service.network.network import DEFAULT_NETWORK
from executor_service.network.networks import Networks
from executor_service.network.pool import SandboxPool
from executor_service.network.records import SandboxRecord
from executor_service.network.sandbox_claims import SandboxClaims, new_token
from executor_service.network.sandbox_kernel import SandboxKernel
from executor_service.threads import to_the_end
from executor_service.user_mapping import UserMapping
from executor_service.user_namespaces import Owner

_PLAIN = EndpointSpec(network_id=DEFAULT_NETWORK)


class PreparedSandboxes:
    """At most `size` of each kind, for user namespaces of `mapping`. `discard` undoes one whose making fails."""

    def __init__(
        self,
        *,
        size: int,
        mapping: UserMapping | None,
        database: Database,
        networks: Networks,
        kernel: SandboxKernel,
        claims: SandboxClaims,
        discard: Callable[[set[str]], Awaitable[None]],
    ) -> None:
        self._owner = None if mapping is None else Owner(mapping=mapping)
        self._database = database
        self._networks = networks
        self._kernel = kernel
        self._claims = claims
        self._discard = discard
        self._finished = SandboxPool(size=size, prepare=self._finish)
        self._bare = SandboxPool(size=size, prepare=self._begin)

    def start(self) -> None:
        self._finished.start()
        self._bare.start()

    async def stop(self) -> set[str]:
        """The tokens of what nobody has taken are the caller's to discard."""
        return await self._finished.stop() | await self._bare.stop()

    async def wait_filled(self) -> None:
        await self._finished.wait_filled()
        await self._bare.wait_filled()

    def drain(self) -> set[str]:
        """The tokens of those that hold addresses, which are the caller's to discard."""
        return self._finished.drain()

    def offers(self, endpoints: Sequence[EndpointSpec], owner: Owner | None) -> Iterator[SandboxRecord | None]:
        """What can be a sandbox that is asked for, the best first, each taken when it is looked at; None at the end:
        there is nothing more."""
        if endpoints and owner == self._owner:
            if tuple(endpoints) == (_PLAIN,) and (finished := self._finished.take()) is not None:
                yield finished
            # The first one's interface is made ahead, as bridges have it.
            if self._networks.bridge(endpoints[0].network_id) and (bare := self._bare.take()) is not None:
                yield bare
        yield None

    async def give_back(self, record: SandboxRecord) -> None:
        """What was taken and is not needed."""
        if self._kernel.exists(record):
            (self._finished if record.endpoints else self._bare).put_back(record)
        else:
            await self._discard({record.token})

    async def _finish(self) -> SandboxRecord:
        async with AsyncExitStack() as undo:
            wanted = SandboxRecord(token=new_token(), sandbox_id=None, mode=NetworkMode.BRIDGE)
            undo.push_async_callback(self._discard, {wanted.token})
            record = await to_the_end(
                self._database.write(partial(self._claims.record, wanted=wanted, endpoints=(_PLAIN,)))
            )
            await self._kernel.wire(record, self._owner)
            undo.pop_all()
            return record

    async def _begin(self) -> SandboxRecord:
        async with AsyncExitStack() as undo:
            record = SandboxRecord(token=new_token(), sandbox_id=None, mode=NetworkMode.BRIDGE)
            undo.push_async_callback(self._discard, {record.token})
            await to_the_end(self._database.write(partial(records.insert, record=record)))
            await self._kernel.wire_bare(record, self._owner)
            undo.pop_all()
            return record
