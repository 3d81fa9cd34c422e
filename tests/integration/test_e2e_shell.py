"""A shell in a container from a terminal of this machine: the client of `make shell` in a pseudo-terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.fixtures.slipway import Slipway

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE = 60.0  # seconds
DETACH = b"\x10\x11"  # ctrl-p ctrl-q


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(engine: Slipway) -> str:
    return await engine.run("sleep", "1000", name="box")


@dataclass(slots=True, kw_only=True)
class Terminal:
    """A terminal with the client in it. `seen`: what it shows and has not been looked at."""

    master: int
    slave: int
    before: list[object]
    process: asyncio.subprocess.Process
    seen: bytes = b""

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def resize(self, rows: int, columns: int) -> None:
        """The kernel tells the client, whose terminal it is: SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def settings(self) -> list[object]:
        settings: list[object] = termios.tcgetattr(self.slave)
        return settings

    async def raw(self) -> None:
        """Until the client has it, which it takes when it is connected."""
        async with asyncio.timeout(PATIENCE):
            while self.settings == self.before:
                await asyncio.sleep(0.02)

    async def shows(self, text: bytes) -> None:
        """Until it has, after what was waited for before."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self.master, readable.set)
        try:
            async with asyncio.timeout(PATIENCE):
                while text not in self.seen:
                    await readable.wait()
                    readable.clear()
                    with suppress(BlockingIOError):
                        self.seen += os.read(self.master, 65536)
        except TimeoutError:
            raise AssertionError(f"{text!r} is not in {self.seen!r}") from None
        finally:
            loop.remove_reader(self.master)
        self.seen = self.seen.partition(text)[2]

    async def ends(self) -> int:
        return await asyncio.wait_for(self.process.wait(), PATIENCE)


def client(engine: Slipway, *words: str) -> Sequence[str]:
    return [sys.executable, "-m", "tests.shell", "--address", engine.api.address, *words]


@asynccontextmanager
async def terminal(engine: Slipway, *words: str, rows: int = 24, columns: int = 80) -> AsyncIterator[Terminal]:
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    try:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        before: list[object] = termios.tcgetattr(slave)
        process = await asyncio.create_subprocess_exec(
            *("setsid", "--ctty", *client(engine, *words)), stdin=slave, stdout=slave, stderr=slave
        )
        shown = Terminal(master=master, slave=slave, before=before, process=process)
        try:
            yield shown
            assert process.returncode is not None, "the test waits for its end"
            assert shown.settings == before, "it is given back as it was"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    finally:
        os.close(master)
        os.close(slave)


async def piped(engine: Slipway, *words: str, typed: bytes = b"") -> tuple[int | None, bytes, bytes]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*client(engine, *words), stdin=pipe, stdout=pipe, stderr=pipe)
    written, said = await asyncio.wait_for(process.communicate(typed), PATIENCE)
    return process.returncode, written, said


async def test_a_shell_of_its_own(engine: Slipway, box: str) -> None:
    async with terminal(engine, "box", rows=33, columns=91) as shown:
        # busybox's line editor asks a terminal without a size for it, and takes what is typed for the answer.
        await shown.shows(b"/ # ")
        shown.type(b"stty size; echo $((6 * 7)).\r")
        await shown.shows(b"\r\n33 91\r\n42.\r\n")
        shown.resize(44, 101)
        shown.type(b"until [ \"$(stty size)\" = '44 101' ]; do :; done; echo now $(stty size)\r")
        await shown.shows(b"\r\nnow 44 101\r\n")
        shown.type(b"echo go; cat\r")
        await shown.shows(b"\r\ngo\r\n")
        shown.type(b"echoed\r")
        await shown.shows(b"echoed\r\nechoed\r\n")
        shown.type(b"\x03")  # the program's, not the client's
        await shown.shows(b"^C")
        await shown.shows(b"/ # ")
        shown.type(b"exit 7\r")
        assert await shown.ends() == 7


async def test_a_shell_is_left_and_ended(engine: Slipway, box: str) -> None:
    async with terminal(engine, "box", "--detach-keys", "x,ctrl-y", "sh", "-c", "read line; sleep 1000") as shown:
        await shown.raw()
        shown.type(b"x and y\r")
        await shown.shows(b"x and y\r\n")
        shown.type(b"x\x19")
        await shown.shows(b"shell: detached; exec ")
        assert await shown.ends() == 0
    running = (await engine.inspect(box)).exec_ids
    assert len(running) == 1
    async with terminal(engine, box[:16], "sh", "-c", "echo on; exec sleep 1000") as shown:
        await shown.shows(b"on\r\n")
        assert len((await engine.inspect(box)).exec_ids) == 2
        shown.process.send_signal(signal.SIGTERM)
        assert await shown.ends() == 128 + signal.SIGTERM
    async with asyncio.timeout(PATIENCE):
        while list((await engine.inspect(box)).exec_ids) != list(running):
            await asyncio.sleep(0.02)


async def test_the_containers_own_process_before_its_start_and_again(engine: Slipway) -> None:
    config = {"tty": True, "open_stdin": True}
    resized = "until [ \"$(stty size)\" = '41 61' ]; do sleep 0.02; done; echo sized"
    # A size that is given before the start may come a little after it.
    given = "until [ \"$(stty size)\" = '31 71' ]; do sleep 0.02; done"
    script = f'{given}; stty size; read one; echo "<$one>"; read two; echo "<$two>"; stty size; {resized}; exit 5'
    await engine.create("sh", "-c", script, name="own", config=config)
    async with terminal(engine, "own", "--attach", rows=30, columns=70) as shown:
        await shown.raw()
        shown.type(b"first\r")
        shown.resize(31, 71)
        await engine.start("own")
        await shown.shows(b"31 71\r\n")
        await shown.shows(b"<first>\r\n")
        shown.type(b"some" + DETACH)
        await shown.shows(b"shell: detached; own goes on")
        assert await shown.ends() == 0
    async with terminal(engine, "own", "--attach", rows=40, columns=60) as shown:
        await shown.raw()
        shown.type(b"thing\r")
        await shown.shows(b"<something>\r\n40 60\r\n")
        shown.resize(41, 61)
        await shown.shows(b"sized\r\n")
        assert await shown.ends() == 5


async def test_without_a_terminal_input_ends_where_the_pipe_does(engine: Slipway, box: str) -> None:
    script = "wc -c; [ -t 0 ] || echo none >&2; exit 3"
    assert await piped(engine, "box", "sh", "-c", script, typed=b"x" * 3_000_000) == (3, b"3000000\n", b"none\n")
    await engine.run("sh", "-c", "wc -c; exit 4", name="once", config={"open_stdin": True, "stdin_once": True})
    assert await piped(engine, "once", "--attach", typed=b"x" * 100_000) == (4, b"100000\n", b"")
    # Who has enough ends in the middle of what is sent.
    enough = ("head", "-c", "10")
    assert await piped(engine, "box", *enough, typed=b"x" * 3_000_000) == (0, b"x" * 10, b"")
    await engine.run("sh", "-c", "head -c 10; exit 6", name="enough", config={"open_stdin": True, "stdin_once": True})
    assert await piped(engine, "enough", "--attach", typed=b"x" * 3_000_000) == (6, b"x" * 10, b"")
    assert (await piped(engine, "box", "nothere", typed=b"x" * 3_000_000))[0] == 127


async def test_what_goes_wrong_is_one_line(engine: Slipway, box: str) -> None:
    for words, code, text in (
        (("box", "nothere"), 127, b"nothere"),
        (("box", "/etc/passwd"), 126, b"passwd"),
        (("nobody",), 125, b"No such container: nobody"),
        (("nobody", "--attach"), 125, b"No such container: nobody"),
        (("box", "--detach-keys", "ctrl-1"), 125, b"detach_keys"),
        (("--address", "unix:///run/nobody.sock", "box"), 125, b"nothing answers at unix:///run/nobody.sock"),
        (("box", "--attach", "sh"), 2, b"--attach takes no COMMAND"),
    ):
        returned, written, said = await piped(engine, *words)
        assert (returned, written, text in said) == (code, b"", True), said
        assert b"Traceback" not in said
        assert code == 2 or (said.startswith(b"shell: ") and said.count(b"\n") == 1)
