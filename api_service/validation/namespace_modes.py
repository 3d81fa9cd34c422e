"""Which of a container's namespaces are its own: `ipc_mode`, `pid_mode`, `uts_mode`, `userns_mode`, `cgroupns_mode`.

Source: moby api/types/container/hostconfig.go, namespaces(7).
"""

from __future__ import annotations

from api_service.validation.host_facts import HostFacts
from common.errors import Violation

HOST = "host"
PRIVATE = "private"
SHAREABLE = "shareable"
NONE = "none"

_CONTAINER = "container:"
_V2 = "v2"


def joined_container(mode: str) -> str | None:
    """The container that `container:<container>` names, as spelled; None for every other mode."""
    return mode.removeprefix(_CONTAINER) if mode.startswith(_CONTAINER) else None


def join_mode(container_id: str) -> str:
    return f"{_CONTAINER}{container_id}"


def normalise_ipc_mode(mode: str) -> str:
    return mode or PRIVATE


def normalise_cgroupns_mode(mode: str, facts: HostFacts) -> str:
    return mode or (PRIVATE if facts.cgroup_layout == _V2 else HOST)


def normalise_init(init: bool | None, pid_mode: str, facts: HostFacts) -> bool:
    """On where it can be: it must be process 1, and the node must have one."""
    return facts.init and not pid_mode if init is None else init


def validate_ipc_mode(mode: str, field: str) -> list[Violation]:
    return _validate(mode, ("", PRIVATE, SHAREABLE, NONE, HOST), field, joins=True)


def validate_pid_mode(mode: str, field: str) -> list[Violation]:
    return _validate(mode, ("", HOST), field, joins=True)


def validate_uts_mode(mode: str, field: str) -> list[Violation]:
    return _validate(mode, ("", HOST), field, joins=False)


def validate_userns_mode(mode: str, field: str) -> list[Violation]:
    """`host`: the node's own users, also on a node that remaps those of containers."""
    return _validate(mode, ("", HOST), field, joins=False)


def validate_cgroupns_mode(mode: str, *, privileged: bool, facts: HostFacts, field: str) -> list[Violation]:
    if privileged and mode == PRIVATE and facts.cgroup_layout != _V2:
        why = "a privileged container cannot have a cgroup namespace of its own with cgroup v1; leave one of them out"
        return [Violation(field=field, description=why)]
    return _validate(mode, ("", PRIVATE, HOST), field, joins=False)


def validate_init(init: bool | None, pid_mode: str, facts: HostFacts, field: str) -> list[Violation]:
    if not init:
        return []
    if pid_mode:
        why = f"an init must be process 1, which it is not with pid mode {pid_mode[:80]!r}; leave one of them out"
        return [Violation(field=field, description=why)]
    if not facts.init:
        why = "the node has no init for containers; install tini there, or leave this out"
        return [Violation(field=field, description=why)]
    return []


def _validate(mode: str, known: tuple[str, ...], field: str, *, joins: bool) -> list[Violation]:
    if mode in known:
        return []
    words = [repr(word) for word in known if word] + (["'container:<container>'"] if joins else [])
    if mode == _CONTAINER and joins:
        why = "name the container after 'container:'"
    elif joined_container(mode) and joins:
        return []
    else:
        why = f"{mode[:80]!r} is not a mode; give {', '.join(words)}" + (" or nothing" if "" in known else "")
    return [Violation(field=field, description=why)]
