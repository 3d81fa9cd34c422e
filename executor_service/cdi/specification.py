"""What stands in a CDI specification (github.com/cncf-tags/container-device-interface, SPEC.md), versions 0.3 to 1.0.

Whoever writes these files decides what containers get of the node; even so nothing in them is passed on that is not
understood. Left out, and refused where they stand: `intelRdt`, `netDevices`, and the hooks `poststart` and `poststop`,
for it is not always the runtime that starts and removes containers here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from executor_service.oci.users import MAX_ID

DEVICE_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]{0,254}[A-Za-z0-9])?"
KIND = r"[A-Za-z](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9])?/[A-Za-z](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9])?"

_Id = Annotated[int, Field(ge=0, le=MAX_ID)]
# Not as `{0,4094}` in the pattern, which takes 6 MiB when it is compiled.
_Path = Annotated[str, Field(pattern=r"^/[^\x00]*$", max_length=4095)]
_Word = Annotated[str, Field(pattern=r"^[^\x00]*$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel)


class CdiDeviceNode(_Part):
    """`type`, `major` and `minor` are those of `host_path` (default: `path`) where they are not given."""

    path: _Path
    host_path: _Path | None = None
    type: Literal["b", "c", "u", ""] = ""
    major: Annotated[int, Field(ge=0, le=2**12 - 1)] = 0
    minor: Annotated[int, Field(ge=0, le=2**20 - 1)] = 0
    file_mode: Annotated[int, Field(ge=0, le=0o777)] | None = None
    permissions: Annotated[str, Field(pattern=r"^[rwm]{0,3}$")] = ""
    uid: _Id | None = None
    gid: _Id | None = None


class CdiMount(_Part):
    host_path: _Path
    container_path: _Path
    options: tuple[str, ...] = Field((), strict=False)
    type: Literal["", "bind", "none"] = ""


class CdiHook(_Part):
    """A program of the node, run as root. `timeout`: seconds."""

    hook_name: Literal["prestart", "createRuntime", "createContainer", "startContainer"]
    path: _Path
    args: tuple[_Word, ...] = Field((), strict=False)
    env: tuple[_Word, ...] = Field((), strict=False)
    timeout: Annotated[int, Field(gt=0, le=3600)] | None = None


class CdiEdits(_Part):
    env: tuple[str, ...] = Field((), strict=False)
    device_nodes: tuple[CdiDeviceNode, ...] = Field((), strict=False)
    mounts: tuple[CdiMount, ...] = Field((), strict=False)
    hooks: tuple[CdiHook, ...] = Field((), strict=False)
    additional_gids: tuple[_Id, ...] = Field((), strict=False, alias="additionalGIDs")


class CdiDevice(_Part):
    name: Annotated[str, Field(pattern=rf"^{DEVICE_NAME}$")]
    annotations: dict[str, str] = {}
    container_edits: CdiEdits


class CdiSpecification(_Part):
    """`container_edits`: made once for any number of its devices, and before theirs."""

    cdi_version: Literal["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0"]
    kind: Annotated[str, Field(pattern=rf"^{KIND}$")]
    annotations: dict[str, str] = {}
    devices: Annotated[tuple[CdiDevice, ...], Field(strict=False, min_length=1)]
    container_edits: CdiEdits = Field(default_factory=lambda: CdiEdits.model_validate({}))
