"""Moves between cgroups are kept fast as long as somebody expects some, by one thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from executor_service.oci.cgroup_moves import CgroupMoves
from executor_service.oci.cgroups import CgroupTree

DEADLINE = 10.0  # seconds


@dataclass(slots=True)
class Tree:
    """Says of each move which thread made it; `refuses`: with an error."""

    refuses: bool = False
    threads: list[int] = field(default_factory=list)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def move_to_where_we_are(self) -> None:
        self.threads.append(threading.get_ident())
        self.loop.call_soon_threadsafe(self.moved.set)
        if self.refuses:
            raise PermissionError

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not true():
                self.moved.clear()
                await self.moved.wait()


def moves_in(tree: Tree) -> CgroupMoves:
    return CgroupMoves(cast("CgroupTree", tree))


async def ended(moves: CgroupMoves) -> None:
    async with asyncio.timeout(DEADLINE):
        while (keeping := moves.keeping) is not None:
            await asyncio.wait({keeping})


async def test_one_thread_moves_us_again_and_again_until_nobody_expects_any_more() -> None:
    tree = Tree()
    moves = moves_in(tree)
    with moves.expected():
        with moves.expected():
            await tree.until(lambda: len(tree.threads) >= 3)
        count = len(tree.threads)
        await tree.until(lambda: len(tree.threads) >= count + 3)
    await ended(moves)
    assert len(set(tree.threads)) == 1
    assert threading.get_ident() not in tree.threads


async def test_it_begins_anew_for_who_comes_later_or_just_as_it_ends() -> None:
    tree = Tree()
    moves = moves_in(tree)
    with moves.expected():
        await tree.until(lambda: len(tree.threads) >= 1)
    with moves.expected():
        keeping = moves.keeping
        assert keeping is not None
        count = len(tree.threads)
        await tree.until(lambda: len(tree.threads) >= count + 2)
    await ended(moves)
    count = len(tree.threads)
    with moves.expected():
        await tree.until(lambda: len(tree.threads) > count)
    await ended(moves)


async def test_a_host_that_does_not_let_us_move_fails_nobody() -> None:
    tree = Tree(refuses=True)
    moves = moves_in(tree)
    with moves.expected():
        await tree.until(lambda: len(tree.threads) >= 2)
    await ended(moves)


async def test_where_no_thread_is_to_be_had_the_next_one_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0

    async def no_thread(work: Callable[[], None]) -> None:
        nonlocal tried
        tried += 1
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("executor_service.oci.cgroup_moves.in_own_thread", no_thread)
    moves = moves_in(Tree())
    with moves.expected():
        await ended(moves)
        for _ in range(20):
            await asyncio.sleep(0)
        assert tried == 1
        with moves.expected():
            await ended(moves)
    assert tried == 2
