"""`python -m tests.shell NAME [COMMAND…]`: a terminal in a container, through the public API alone.

The exit code is the program's own; 126 and 127 when it could not be run, 125 when anything else went wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence

import grpc

from common.errors import SlipwayError, Unavailable
from common.rpc_status import error_from
from tests.shell.session import UNKNOWN, Ended, attach, run_exec

_ADDRESS = "127.0.0.1:50051"  # where `make up` serves
_VALUED = ("--address", "--detach-keys")
_DEADLY = (signal.SIGTERM, signal.SIGHUP)
_SIGPIPE = 128 + signal.SIGPIPE


def main() -> int:
    options, command = _options(sys.argv[1:])
    try:
        ended = asyncio.run(_session(options, command))
    except grpc.aio.AioRpcError as error:
        return _failed(options.address, error_from(error))
    except ConnectionError as error:
        # Of our own output: whoever read it has gone, as `head` does.
        return _SIGPIPE if isinstance(error, BrokenPipeError) else _say(str(error))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if ended.note:
        _say(ended.note)
    return ended.exit_code


def _options(argv: Sequence[str]) -> tuple[argparse.Namespace, Sequence[str]]:
    ours, command = _split(argv)
    parser = argparse.ArgumentParser(
        prog="python -m tests.shell",
        usage="%(prog)s NAME [options] [COMMAND ...]",
        description="A terminal in a container. COMMAND is /bin/sh unless given.",
    )
    parser.add_argument("name", metavar="NAME", help="the container: name, id or unique beginning of an id")
    parser.add_argument("--attach", action="store_true", help="the container's own process instead of another one")
    parser.add_argument("--address", default=_ADDRESS, help="the API service (default: %(default)s)")
    parser.add_argument("--detach-keys", default="", help="keys that leave it running (default: ctrl-p,ctrl-q)")
    options = parser.parse_args(ours)
    if options.attach and command:
        parser.error("--attach takes no COMMAND: it is the process that the container has")
    return options, command or ("/bin/sh",)


def _split(argv: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Options may stand before and after NAME; the next word begins the command, whose options are its own."""
    at, named = 0, False
    while at < len(argv):
        if argv[at] == "--":
            return argv[:at], argv[at + 1 :]
        if not argv[at].startswith("-"):
            if named:
                break
            named = True
        at += 2 if argv[at] in _VALUED else 1
    return argv[:at], argv[at:]


async def _session(options: argparse.Namespace, command: Sequence[str]) -> Ended:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    received: list[int] = []

    def end(number: int) -> None:
        received.append(number)
        task.cancel()

    for number in _DEADLY:
        loop.add_signal_handler(number, end, number)
    try:
        async with grpc.aio.insecure_channel(options.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            if options.attach:
                return await attach(channel, options.name, detach_keys=options.detach_keys)
            return await run_exec(channel, options.name, command, detach_keys=options.detach_keys)
    except asyncio.CancelledError:
        if not received:
            raise
        return Ended(exit_code=128 + received[0])


def _failed(address: str, error: SlipwayError) -> int:
    if isinstance(error, Unavailable) and error.reason == Unavailable.default_reason:
        _say(f"nothing answers at {address}: start the services (make up), or name where they are with --address")
        return UNKNOWN
    _say(error.message)
    return int(error.metadata.get("exit_code", UNKNOWN))


def _say(text: str) -> int:
    print(f"shell: {' '.join(text.split())}", file=sys.stderr)
    return UNKNOWN


if __name__ == "__main__":
    sys.exit(main())
