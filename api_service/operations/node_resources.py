"""Limits as an executor takes them."""

from __future__ import annotations

import dataclasses

from api_service.records.resources import Resources

_PERIOD = 100_000  # microseconds
_CPU = 1_000_000_000  # nano CPUs


def node_resources(resources: Resources) -> Resources:
    """With `nano_cpus` as processor time in each period."""
    if not resources.nano_cpus:
        return resources
    quota = resources.nano_cpus * _PERIOD // _CPU
    return dataclasses.replace(resources, nano_cpus=0, cpu_period=_PERIOD, cpu_quota=quota)
