"""The three files of name resolution that a container is given: /etc/hosts, /etc/hostname, /etc/resolv.conf.

Content as Docker's: hosts(5) with dual-stack loopback names and the container's own addresses, resolv.conf(5) taken
from the host without its loopback resolvers, which a container cannot reach. On user-defined networks the name server
is the executor itself, which asks the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from common.errors import InvalidArgument, Violation
from executor_service.container import ContainerSpec, NameResolution, NetworkMode
from executor_service.dns.redirect import ADDRESS
from executor_service.network.network import DEFAULT_NETWORK
from executor_service.network.sandbox import Endpoint
from executor_service.user_mapping import UserMapping

HOST_GATEWAY = "host-gateway"

_LOOPBACK_HOSTS = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)
_PUBLIC_SERVERS = ("8.8.8.8", "8.8.4.4")
_LONGEST_HOSTS_NAME = 255
_LONGEST_FILE = 16 * 1024 * 1024  # bytes; far more than extra hosts can make


@dataclass(frozen=True, slots=True, kw_only=True)
class NameFiles:
    """Whole contents, each ending in a newline unless empty."""

    hosts: str
    hostname: str
    resolv_conf: str


def name_files(
    spec: ContainerSpec,
    *,
    endpoints: Sequence[Endpoint],
    host_gateway: Sequence[str],
    host_hosts: str,
    host_resolv_conf: str,
) -> NameFiles:
    """The files of a container. `host_hosts` and `host_resolv_conf` are the contents of the host's files; the address
    `host-gateway` in the extra hosts stands for every one of `host_gateway`. Raises InvalidArgument."""
    for field, value in (("hostname", spec.hostname), ("domainname", spec.domainname)):
        if _breaks_line(value):
            raise _violation(field, f"{value!a} holds a space or a control character; give a host name")
    own_namespace = spec.network_mode is not NetworkMode.HOST
    base = _lines(_LOOPBACK_HOSTS) if own_namespace else _ended(host_hosts)
    return NameFiles(
        hosts=base + _lines([*_extra(spec.names.extra_hosts, host_gateway), *_own(spec, endpoints)]),
        hostname=f"{spec.hostname}\n",
        resolv_conf=resolv_conf_content(
            host_resolv_conf, spec.names, own_namespace=own_namespace, embedded=on_user_network(endpoints)
        ),
    )


def on_user_network(endpoints: Sequence[Endpoint]) -> bool:
    """Whether names are resolved by the executor: on the default network they are not."""
    return any(endpoint.network_id != DEFAULT_NETWORK for endpoint in endpoints)


def resolv_conf_content(host: str, names: NameResolution, *, own_namespace: bool, embedded: bool = False) -> str:
    """/etc/resolv.conf from the host's and the container's settings; each setting of the container replaces the host's.

    In a namespace of its own the host's loopback resolvers are left out, and public ones take their place when none
    remain. `embedded`: the executor's server is the only one, and a name without a dot is asked as it is unless the
    options say otherwise. Raises InvalidArgument for a setting that would break out of its line."""
    if not own_namespace and not (names.servers or names.search or names.options):
        return host
    servers, search, options = _parse(host)
    if own_namespace:
        servers = [server for server in servers if not _is_loopback(server)] or list(_PUBLIC_SERVERS)
    servers = [*_checked("dns", names.servers)] or servers
    search = [*_checked("dns_search", names.search)] or search
    options = [*_checked("dns_options", names.options)] or options
    if embedded:
        servers = [ADDRESS]
        options += [] if any(option.startswith("ndots:") for option in options) else ["ndots:0"]
    if search == ["."]:  # Docker's way to say: no search domains at all
        search = []
    lines = [f"nameserver {server}" for server in servers]
    lines += [f"search {' '.join(search)}"] if search else []
    lines += [f"options {' '.join(options)}"] if options else []
    return "".join(f"{line}\n" for line in lines)


def write_name_files(directory: Path, files: NameFiles, *, owner: UserMapping | None = None) -> None:
    """Write `hosts`, `hostname` and `resolv.conf` (0644, of root as `owner` has it) into an existing directory of
    ours. Blocks. Raises OSError.

    A running container has these very inodes mounted, so they are rewritten in place, each by a single write: a
    reader sees nothing or the whole, never a part."""
    for name, content in _by_name(files).items():
        _write(directory / name, content, owner)


def update_name_files(directory: Path, *, old: NameFiles, new: NameFiles, owner: UserMapping | None = None) -> None:
    """Write what differs between `old` and `new`, but no file that is not `old` any more: the container has changed it.
    Blocks. Raises OSError."""
    before = _by_name(old)
    for name, content in _by_name(new).items():
        path = directory / name
        if content != before[name] and _read(path) == before[name].encode():
            _write(path, content, owner)


def restore_name_files(
    directory: Path,
    spec: ContainerSpec,
    *,
    new: NameFiles,
    bare: NameFiles,
    embedded: str,
    owner: UserMapping | None = None,
) -> None:
    """Write what differs from `new` and is as on other networks, as a change that was cut off leaves it; what the
    container has changed is its own. `bare`: the files on no network, `embedded`: the resolv.conf on a user-defined
    one. Blocks. Raises OSError."""
    hosts = _read(directory / "hosts").decode(errors="replace")
    if hosts != new.hosts and hosts.startswith(bare.hosts):
        own = [line.partition("\t") for line in hosts.removeprefix(bare.hosts).splitlines()]
        if all(_is_address(address) and names == _own_names(spec) for address, _, names in own):
            _write(directory / "hosts", new.hosts, owner)
    if _read(directory / "resolv.conf").decode(errors="replace") in {bare.resolv_conf, embedded} - {new.resolv_conf}:
        _write(directory / "resolv.conf", new.resolv_conf, owner)


def _by_name(files: NameFiles) -> dict[str, str]:
    return {"hosts": files.hosts, "hostname": files.hostname, "resolv.conf": files.resolv_conf}


def _read(path: Path) -> bytes:
    """As much as a file of ours can have, and more when it is longer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _LONGEST_FILE)
    finally:
        os.close(descriptor)


def _write(path: Path, content: str, owner: UserMapping | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(descriptor, 0o644)
        if owner is not None:
            os.fchown(descriptor, owner.first_uid, owner.first_gid)
        os.write(descriptor, content.encode())
    finally:
        os.close(descriptor)


def _own(spec: ContainerSpec, endpoints: Sequence[Endpoint]) -> list[tuple[str, str]]:
    if not spec.hostname:
        return []
    addresses = (address for one in endpoints for address in (one.ipv4_address, one.ipv6_address) if address)
    return [(address, _own_names(spec)) for address in addresses]


def _own_names(spec: ContainerSpec) -> str:
    """The fully qualified name first, as hosts(5) wants it."""
    qualified = f"{spec.hostname}.{spec.domainname}" if spec.domainname else spec.hostname
    short = qualified.partition(".")[0]
    return f"{qualified} {short}" if short and short != qualified else qualified


def _extra(extra_hosts: Iterable[tuple[str, str]], host_gateway: Sequence[str]) -> list[tuple[str, str]]:
    entries = []
    for name, address in extra_hosts:
        if not name or len(name) > _LONGEST_HOSTS_NAME or _breaks_line(name) or "#" in name:
            raise _violation("extra_hosts", f"{name!a} is no host name; give one word without space or '#'")
        for resolved in host_gateway if address == HOST_GATEWAY else (address,):
            if not _is_address(resolved):
                raise _violation("extra_hosts", f"{address!a} of {name} is no IP address; give one, or {HOST_GATEWAY}")
            entries.append((resolved, name))
    return entries


def _parse(host: str) -> tuple[list[str], list[str], list[str]]:
    """(servers, search domains, options); of several `search` or `domain` lines the last counts: resolv.conf(5)."""
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in host.splitlines():
        keyword, *values = line.split("#")[0].split(";")[0].split() or [""]
        if keyword == "nameserver" and values:
            servers.append(values[0])
        elif keyword in {"search", "domain"}:
            search = values
        elif keyword == "options":
            options += values
    return servers, search, options


def _checked(field: str, values: Sequence[str]) -> Sequence[str]:
    for value in values:
        if not value or _breaks_line(value):
            raise _violation(field, f"{value!a} holds a space or nothing; give one word per entry")
        if field == "dns" and not _is_address(value):
            raise _violation(field, f"'{value}' is no IP address; a name server is given by its address")
    return values


def _is_loopback(server: str) -> bool:
    return _is_address(server) and ip_address(server).is_loopback


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _breaks_line(text: str) -> bool:
    return any(character.isspace() or not character.isprintable() for character in text)


def _violation(field: str, description: str) -> InvalidArgument:
    return InvalidArgument(violations=[Violation(field=field, description=description)])


def _lines(entries: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{address}\t{names}\n" for address, names in entries)


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"
