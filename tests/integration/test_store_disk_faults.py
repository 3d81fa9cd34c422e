"""The embedded store on a disk that is full and on one that turns read-only: real ones, in a mount namespace of the
child's own, which takes them with it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from executor_service.run import run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

_CHILD = """
import asyncio, subprocess, sys
from pathlib import Path
from api_service.store.sqlite_store import SqliteStore
from api_service.store.store import Delete, Put
from common.errors import ResourceExhausted, Unavailable

directory = Path(sys.argv[1])

async def fill(store):
    acknowledged = {}
    for number in range(10_000):
        value = str(number).encode() * 300
        try:
            acknowledged[f"k{number}"] = (await store.commit(Put(key=f"k{number}", value=value)), value)
        except ResourceExhausted as error:
            assert error.reason == "DISK_FULL", error.reason
            assert "free space" in error.message and str(directory) in error.message, error.message
            return acknowledged
    raise AssertionError("the disk was never full")

async def check(store, acknowledged):
    for key, (revision, value) in acknowledged.items():
        entry = await store.get(key)
        assert entry is not None and (entry.revision, entry.value) == (revision, value), key

async def full():
    ballast = directory / "ballast"
    ballast.write_bytes(bytes(512 * 1024))
    async with SqliteStore(directory / "store.db") as store:
        acknowledged = await fill(store)
        assert acknowledged
        await check(store, acknowledged)
        refused = await asyncio.gather(
            *(store.commit(Put(key="x", value=bytes(5000))) for _ in range(20)), return_exceptions=True
        )
        assert all(isinstance(outcome, ResourceExhausted) for outcome in refused), refused
        assert await store.get("x") is None
        ballast.unlink()
        revision = await store.commit(Put(key="after", value=b"room"))
        assert revision == max(revision for revision, _ in acknowledged.values()) + 1
    async with SqliteStore(directory / "store.db") as store:
        await check(store, acknowledged)
        assert await store.revision() == revision

async def read_only():
    remount = lambda how: subprocess.run(["mount", "-o", f"remount,{how}", str(directory)], check=True)
    async with SqliteStore(directory / "store.db") as store:
        await store.commit(Put(key="a", value=b"1"))
    remount("ro")
    try:
        async with SqliteStore(directory / "store.db") as store:
            raise AssertionError("opened on a read-only disk")
    except Unavailable as error:
        assert str(directory) in error.message and "ead-only" in error.message, error.message
    remount("rw")
    async with SqliteStore(directory / "store.db") as store:
        assert (await store.get("a")).value == b"1"

asyncio.run({"full": full, "read_only": read_only}[sys.argv[2]]())
print("proven")
"""


@pytest.mark.parametrize("fault", ["full", "read_only"])
async def test_disk_fault(tmp_path: Path, fault: str) -> None:
    mounted = f'mount -t tmpfs -o size=2m,mode=0700 none "$1" && exec "{sys.executable}" -c "$2" "$1" {fault}'
    completed = await run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounted, "sh", str(tmp_path), _CHILD],
        timeout=60,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert completed.returncode == 0, completed.message
    assert completed.stdout.strip() == b"proven"
    assert str(tmp_path) not in await asyncio.to_thread(Path("/proc/self/mounts").read_text)
    assert list(tmp_path.iterdir()) == []
