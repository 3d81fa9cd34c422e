"""An executor in a mount namespace of its own, as in a container with the host's process ids: paths of binds are those
that process 1 sees.

Run as a program it is that executor's surroundings: `python test_mounts_node_view.py DIRECTORY`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from tests.fixtures.netns import command
from tests.fixtures.slipway import installed

_PROJECT = Path(__file__).parents[2]
# Process 1 of a process namespace, and a child that does not share its mounts.
_SURROUNDINGS = 'mount -t proc proc /proc && unshare --mount --propagation private "$@"'


async def _bind(scratch: Path) -> None:
    place = scratch / "place"
    place.mkdir()
    async with installed(scratch) as engine:
        for line in (["mount", "-t", "tmpfs", "t", str(place)], ["touch", str(place / "of-process-1")]):
            command("nsenter", "--mount=/proc/1/ns/mnt", *line)
        sys.stdout.write(await engine.output("ls", "/b", binds=[f"{place}:/b"]))
    assert list(place.iterdir()) == []


def test_binds_are_of_the_mounts_of_process_1(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *("unshare", "--pid", "--fork", "--mount", "--propagation", "private", "sh", "-c", _SURROUNDINGS, "sh"),
            *(sys.executable, __file__, str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": f"{_PROJECT}:{_PROJECT / 'protos'}", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        cwd=_PROJECT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "of-process-1\n"


if __name__ == "__main__":
    asyncio.run(_bind(Path(sys.argv[1])))
