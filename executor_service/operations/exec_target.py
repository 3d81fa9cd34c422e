"""Where a program is run that is run in a container."""

from __future__ import annotations

from executor_service.container import ContainerSpec
from executor_service.container_record import Run
from executor_service.oci.exec_runtime import ExecTarget
from executor_service.paths import Paths


def exec_target(paths: Paths, spec: ContainerSpec, run: Run) -> ExecTarget:
    return ExecTarget(
        container_id=spec.id,
        process=run.process.container,
        bundle=paths.bundle(spec.id),
        runtime=spec.runtime,
        remapped=spec.remapped,
    )
