"""What one TCP connection carries between two network namespaces. iperf3(1)"""

from __future__ import annotations

import json
import subprocess
import time


def throughput(client: str, server: str, seconds: int) -> float:
    """Gbit/s, to the first IPv4 address of the server's eth0; both are paths of network namespaces."""
    inside = ("nsenter", f"--net={server}")
    said = run(*inside, "ip", "-4", "-j", "address", "show", "dev", "eth0")
    address = json.loads(said)[0]["addr_info"][0]["local"]
    serving = subprocess.Popen([*inside, "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL)
    try:
        while not run(*inside, "ss", "-Hltn", "sport = 5201"):
            time.sleep(0.05)
        said = run("nsenter", f"--net={client}", "iperf3", "-J", "-t", str(seconds), "-c", address)
    finally:
        serving.terminate()
        serving.wait()
    return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 1e9


def run(*argv: str) -> str:
    """What a program wrote. Raises RuntimeError when it fails."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}{done.stdout[-300:]}")
    return done.stdout
