"""Which OCI runtimes this node has, and which one a container gets."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from common.errors import InvalidArgument, Unimplemented, Violation

_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class RuntimeKind(StrEnum):
    """How far the engine knows the runtime's private state; `OTHER` is only ever asked through its command line."""

    CRUN = "crun"
    RUNC = "runc"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeBinary:
    name: str
    path: Path
    kind: RuntimeKind


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeCatalog:
    """Runtimes by name; `default` is the name of the one that an empty name means."""

    runtimes: Mapping[str, RuntimeBinary]
    default: str

    @classmethod
    def probe(
        cls, *, configured: Mapping[str, str] | None = None, default: str = "", search_path: str = _SEARCH_PATH
    ) -> RuntimeCatalog:
        """Look for crun and runc, add what the configuration names (name -> absolute path). Without a configured
        default, crun is taken when it is there, else runc. Raises Unimplemented when no runtime is found,
        InvalidArgument for a configured one that cannot be executed."""
        paths = {name: found for name in ("crun", "runc") if (found := shutil.which(name, path=search_path))}
        paths.update(configured or {})
        runtimes = {name: _binary(name, path) for name, path in paths.items()}
        if not runtimes:
            raise Unimplemented(
                f"no OCI runtime found in {search_path}; install crun, or name one in the configuration"
            )
        chosen = default or next((name for name in ("crun", "runc") if name in runtimes), next(iter(runtimes)))
        catalog = cls(runtimes=runtimes, default=chosen)
        catalog.resolve(chosen)
        return catalog

    def resolve(self, name: str) -> RuntimeBinary:
        """The runtime of that name, the default for an empty name. Raises InvalidArgument listing what is known."""
        try:
            return self.runtimes[name or self.default]
        except KeyError:
            known = ", ".join(sorted(self.runtimes))
            description = f"the runtime {name!r} is not known on this node; known are: {known}"
            raise InvalidArgument(
                violations=[Violation(field="host_config.runtime", description=description)]
            ) from None


def _binary(name: str, path: str) -> RuntimeBinary:
    if not Path(path).is_absolute() or not os.access(path, os.X_OK) or not Path(path).is_file():
        raise InvalidArgument(
            f"runtime {name!r}: {path!r} is not the absolute path of an executable file; correct the configuration"
        )
    base = Path(path).name
    kind = next((kind for kind in (RuntimeKind.CRUN, RuntimeKind.RUNC) if base == kind.value), RuntimeKind.OTHER)
    return RuntimeBinary(name=name, path=Path(path), kind=kind)
