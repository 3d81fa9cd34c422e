"""What the kernel says of project quotas where the roots of containers are, and how that is told."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from executor_service.container import ContainerSpec
from executor_service.oci.host import probe_host
from executor_service.oci.host_refusals import host_refusals
from executor_service.storage.project_quotas import quota_obstacle

ASKED = ContainerSpec(id="ab" * 32, image_id="", args=("sh",), root_size=1024**3)


def test_the_refusal_names_the_field_the_obstacle_and_the_way_out(tmp_path: Path) -> None:
    [violation] = host_refusals(ASKED, probe_host(), storage=tmp_path)
    assert violation.field == 'host_config.storage_opt["size"]'
    assert f"cannot be held to a size: {quota_obstacle(tmp_path)}; leave it out" in violation.description


def test_a_file_system_without_such_quotas_is_named() -> None:
    assert quota_obstacle(Path("/proc")) == "/proc is neither on ext4 nor on xfs, which alone have project quotas"


def test_what_the_kernel_was_built_without_is_named(tmp_path: Path) -> None:
    configuration = Path("/proc/config.gz")
    if not configuration.exists() or b"CONFIG_QFMT_V2=" in gzip.decompress(configuration.read_bytes()):
        pytest.skip("this kernel has quotas, or does not say")
    said = quota_obstacle(tmp_path)
    assert said == "the node's kernel was built without CONFIG_QFMT_V2, so there are no project quotas on ext4"
