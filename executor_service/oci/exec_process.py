"""A further program in a running container: what the runtime is told of it (OCI `process`, as `runc exec --process`).

The container runs, so its files may change under our eyes: user and working directory are looked up in the root its own
processes see, without leaving it, and the runtime is given numbers and a path without links.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import FailedPrecondition, InvalidArgument, StartFailed, Violation
from executor_service.container import ContainerSpec, TerminalSize
from executor_service.limits import Rlimit
from executor_service.oci.capabilities import bounding_set, process_capabilities
from executor_service.oci.open_in_root import open_in_root
from executor_service.oci.processes import read_process
from executor_service.oci.runtime import Process
from executor_service.oci.security import process_rlimits
from executor_service.oci.spec import check_working_dir
from executor_service.oci.users import ResolvedUser, check_mapped, resolve_user
from executor_service.user_mapping import UserMapping

_NOT_FOUND = 127  # the exit code of what cannot be run where it should be


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecProcessSpec:
    """`env` is whole but for HOME. `user` is Docker's grammar. `capabilities` are those of root; another user only has
    them in its bounding set."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    working_dir: str = "/"
    user: str = ""
    group_add: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    rlimits: tuple[Rlimit, ...] = ()
    oom_score_adj: int = 0
    terminal: bool = False
    terminal_size: TerminalSize | None = None


def process_in(spec: ContainerSpec, args: tuple[str, ...]) -> ExecProcessSpec:
    """A program with everything as the container's own process has it, but without a terminal."""
    return ExecProcessSpec(
        args=args,
        env=spec.env,
        working_dir=spec.working_dir,
        user=spec.user,
        group_add=spec.group_add,
        capabilities=spec.security.capabilities,
        no_new_privileges=spec.security.no_new_privileges,
        apparmor_profile=spec.security.apparmor_profile,
        rlimits=spec.rlimits,
        oom_score_adj=spec.oom_score_adj,
    )


def oci_process(
    spec: ExecProcessSpec, container: Process, mapping: UserMapping | None = None
) -> tuple[dict[str, object], ResolvedUser]:
    """The `process` object and its user, with user and directory looked up where `container`'s first process has its
    root. `mapping`: of its users, if they are others on the node.

    Blocks. Raises InvalidArgument for a user or a path that may not be, StartFailed when the directory is not there,
    FailedPrecondition when the container has ended.
    """
    root = _open_root(container)
    try:
        user = resolve_user(Path(f"/proc/self/fd/{root}"), spec.user, spec.group_add)
        directory = _working_dir(root, spec.working_dir)
    finally:
        os.close(root)
    if mapping is not None:
        check_mapped(user, mapping, spec.user)
    process: dict[str, object] = {
        "terminal": spec.terminal,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional_gids)},
        "args": list(spec.args),
        "env": _environment(spec, user),
        "cwd": directory,
        "capabilities": process_capabilities(bounding_set().intersection(spec.capabilities), uid=user.uid),
        "noNewPrivileges": spec.no_new_privileges,
        "oomScoreAdj": spec.oom_score_adj,
    }
    if spec.terminal_size is not None:
        process["consoleSize"] = {"height": spec.terminal_size.height, "width": spec.terminal_size.width}
    if spec.rlimits:
        process["rlimits"] = process_rlimits(spec.rlimits)
    if spec.apparmor_profile:
        process["apparmorProfile"] = spec.apparmor_profile
    return process, user


def _open_root(container: Process) -> int:
    try:
        root = os.open(f"/proc/{container.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _ended(container) from error
    # Compared after opening: a pid that was given to another process meanwhile is not taken for the container's.
    if read_process(container.pid) != container:
        os.close(root)
        raise _ended(container)
    return root


def _ended(container: Process) -> FailedPrecondition:
    return FailedPrecondition(
        f"the container's process {container.pid} has ended; start the container again", reason="NOT_RUNNING"
    )


def _working_dir(root: int, path: str) -> str:
    """The directory's path without links. Links through somebody's descriptors lead nowhere (CVE-2024-21626)."""
    if broken := check_working_dir(path):
        raise InvalidArgument(violations=[replace(violation, field="working_dir") for violation in broken])
    try:
        descriptor = open_in_root(root, path, flags=os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        if error.errno == errno.ELOOP:
            why = f"{path!r} leads through a process's descriptors, or in a circle; name a directory itself"
            raise InvalidArgument(violations=[Violation(field="working_dir", description=why)]) from error
        raise StartFailed(
            f"working directory {path!r}: {error.strerror}; name one that exists in the container",
            exit_code=_NOT_FOUND,
        ) from error
    try:
        # Links point at paths as they look from here, so the root's own comes first.
        found, top = (str(Path(f"/proc/self/fd/{number}").readlink()) for number in (descriptor, root))
    finally:
        os.close(descriptor)
    return _below(found, top) or path


def _below(path: str, top: str) -> str:
    """`path` as it reads from `top`; empty when it cannot be told."""
    if top == "/":
        return path
    return (path.removeprefix(top) or "/") if path == top or path.startswith(f"{top}/") else ""


def _environment(spec: ExecProcessSpec, user: ResolvedUser) -> list[str]:
    given = any(entry.startswith("HOME=") for entry in spec.env)
    return list(spec.env) if given else [*spec.env, f"HOME={user.home}"]
