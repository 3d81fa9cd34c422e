"""What thousands of ports cost the executor's memory once their rules are in the kernel."""

from __future__ import annotations

import subprocess
import sys

# A process of its own: the heap of this one has room for all of it already.
_PROGRAM = """
import asyncio
from executor_service.network import firewall, port_rules
from executor_service.network.port_leases import Lease
from executor_service.ports import PortProtocol

def used():
    with open("/proc/self/smaps_rollup") as rollup:
        # Of its own: what it shares with other programs changes with theirs.
        return next(int(line.split()[1]) for line in rollup if line.startswith("Anonymous:"))

async def main():
    await asyncio.to_thread(firewall.install_table, "memory_test", [])
    leases = [
        Lease(container_id="c", protocol=PortProtocol.TCP, host_ip="::", host_port=20000 + number,
              container_port=80, chosen=False, target="fd00::2")
        for number in range(5000)
    ]
    commands = port_rules.add("memory_test", leases)
    before = used()
    await asyncio.to_thread(firewall.run_commands, commands)
    print(used() - before)
    await asyncio.to_thread(firewall.remove_table, "memory_test")

asyncio.run(main())
"""


def test_the_rules_of_thousands_of_ports_leave_no_memory_behind() -> None:
    """5,000 of them: more than 10 MiB that nobody uses, if they are not given back."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 4 * 1024, "kibibytes"
