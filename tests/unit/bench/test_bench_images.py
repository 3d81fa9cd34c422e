"""What the benchmark of images says of its aims."""

from __future__ import annotations

from tests.bench.images import Found, rendered
from tests.bench.report import MET, NOT_MET


def test_each_aim_is_told_with_its_figure() -> None:
    whole, shared = "pull of 400 MB, 46,000 files, 8 layers", "pull that shares 7 of 8 layers"
    times = {
        whole: {"slipway": [4.0], "dockerd": [8.0], "gzip, tar": [2.0]},
        shared: {"slipway": [0.6]},
        "create from 1 layer": {"slipway": [0.010]},
        "create from 40 layers": {"slipway": [0.015]},
    }
    lines = rendered(Found(times=times, memory=[98, 120])).splitlines()
    told = {
        cells[1].strip(): (cells[2].strip(), cells[-2].strip()) for line in lines if len(cells := line.split("|")) > 4
    }
    assert told["pull, to dockerd's"] == ("0.50", MET)
    assert told["pull, to gzip and tar"] == ("2.00", NOT_MET)
    assert told["pull that shares, to a whole one"] == ("0.15", MET)
    assert told["create from 40 layers, to one from 1"] == ("1.50", NOT_MET)
    assert told["peak memory with pulls, in MB"] == ("125.83", MET)
