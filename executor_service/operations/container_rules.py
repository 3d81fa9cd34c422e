"""What the executor itself demands of a container, whoever asks: everything that would be dangerous if the API service
were wrong. Pure. Fields are named as in `slipway.executor.v1.ContainerSpec`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address

from common.errors import Violation
from executor_service.container import CONTAINER_ID, RESERVED_ANNOTATIONS, ContainerSpec, EndpointSpec, NetworkMode
from executor_service.network.files import HOST_GATEWAY
from executor_service.network.network import DEFAULT_NETWORK
from executor_service.operations.mount_rules import mount_rules
from executor_service.operations.process_rules import process_rules
from executor_service.operations.resource_rules import cgroup_parent_violations, resource_violations
from executor_service.operations.security_rules import security_rules
from executor_service.operations.supervision_rules import supervision_rules
from executor_service.ports import HIGHEST_PORT, LOOPBACK_IPV6, MAX_PUBLISHED, PortProtocol, PublishedPort

IMAGE_ID = re.compile(r"sha256:[a-f0-9]{64}")
START_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
MAX_LOG_BUFFER = 1024**3  # bytes of this node's memory
HIGHEST_SIGNAL = 64  # SIGRTMAX, signal(7)

_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?")  # at most HOST_NAME_MAX, gethostname(2)
_WORD = re.compile(r"[!-~]{1,255}")
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")
_RUNTIME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def violations(spec: ContainerSpec) -> list[Violation]:
    """Every broken rule."""
    found = (
        *(
            _identity(spec),
            process_rules(spec.args, spec.env, working_dir=spec.working_dir, user=spec.user),
            _network(spec),
            _host(spec),
            _names(spec),
        ),
        *(mount_rules(spec.mounts), security_rules(spec)),
        *(supervision_rules(spec), _ports(spec)),
    )
    return [
        *(Violation(field=f"spec.{field}", description=text) for rules in found for field, text in rules),
        *resource_violations(spec.resources, field="spec.resources"),
        *cgroup_parent_violations(spec.cgroup_parent, field="spec.cgroup_parent"),
    ]


def id_violations(container_id: str, *, field: str = "container_id") -> list[Violation]:
    if CONTAINER_ID.fullmatch(container_id):
        return []
    return [Violation(field=field, description=f"{container_id!a} must be 64 lower-case hexadecimal characters")]


def endpoint_violations(endpoint: EndpointSpec, *, field: str) -> list[Violation]:
    return [Violation(field=f"{field}.{name}", description=text) for name, text in _endpoint(endpoint)]


def port_violations(spec: ContainerSpec) -> list[Violation]:
    return [Violation(field=field, description=text) for field, text in _ports(spec)]


def start_id_violations(start_id: str) -> list[Violation]:
    if START_ID.fullmatch(start_id):
        return []
    return [Violation(field="start_id", description=f"{start_id!a} must be 1 to 64 of A-Z a-z 0-9 . _ -")]


def signal_violations(signal: int) -> list[Violation]:
    if 1 <= signal <= HIGHEST_SIGNAL:
        return []
    return [Violation(field="signal", description=f"{signal} must be the number of a signal, 1 to {HIGHEST_SIGNAL}")]


def image_id_violations(image_id: str, *, field: str = "image_id") -> list[Violation]:
    if IMAGE_ID.fullmatch(image_id):
        return []
    return [Violation(field=field, description=f"{image_id!a} must be `sha256:` and 64 lower-case hexadecimal digits")]


_Rules = Iterator[tuple[str, str]]


def _identity(spec: ContainerSpec) -> _Rules:
    for violation in id_violations(spec.id, field="id"):
        yield violation.field, violation.description
    if spec.image_id:
        for violation in image_id_violations(spec.image_id):
            yield violation.field, violation.description
    if spec.runtime and not _RUNTIME.fullmatch(spec.runtime):
        yield "runtime", f"{spec.runtime!a} must be the name of an OCI runtime this node is configured with"
    for key, value in spec.annotations.items():
        if key.startswith(RESERVED_ANNOTATIONS):
            yield f"annotations[{key!a}]", "is reserved: it would steer the OCI runtime"
        if not _WORD.fullmatch(key) or "\0" in value:
            yield f"annotations[{key!a}]", "the key must be one printable word, the value without NUL"


def _network(spec: ContainerSpec) -> _Rules:
    attached, shared = bool(spec.endpoints), bool(spec.network_container)
    if attached and spec.network_mode is not NetworkMode.BRIDGE:
        yield "endpoints", f"must be empty with network mode {spec.network_mode.value}"
    if shared != (spec.network_mode is NetworkMode.CONTAINER):
        yield "network_container", f"{spec.network_container!a} does not fit network mode {spec.network_mode.value}"
    if shared:
        for violation in id_violations(spec.network_container, field="network_container"):
            yield violation.field, violation.description
    seen: set[str] = set()
    for index, endpoint in enumerate(spec.endpoints):
        if endpoint.network_id in seen:
            yield f"endpoints[{index}].network_id", f"{endpoint.network_id!a} is there twice"
        seen.add(endpoint.network_id)
        for field, text in _endpoint(endpoint):
            yield f"endpoints[{index}].{field}", text


def _endpoint(endpoint: EndpointSpec) -> _Rules:
    if endpoint.network_id != DEFAULT_NETWORK and not CONTAINER_ID.fullmatch(endpoint.network_id):
        known = f"64 lower-case hexadecimal characters, or {DEFAULT_NETWORK!a}"
        yield "network_id", f"{endpoint.network_id!a} must be {known}"
    if endpoint.mac_address and not _MAC.fullmatch(endpoint.mac_address):
        yield "mac_address", f"{endpoint.mac_address!a} must be six lower-case hex octets joined by ':', the first even"
    for field, text, version in (
        ("ipv4_address", endpoint.ipv4_address, 4),
        ("ipv6_address", endpoint.ipv6_address, 6),
    ):
        if text and not (_is_address(text) and ip_address(text).version == version):
            yield field, f"{text!a} must be an IPv{version} address"
    for index, name in enumerate(endpoint.dns_names):
        if not _WORD.fullmatch(name):
            yield f"dns_names[{index}]", f"{name!a} must be one printable word of at most 255 characters"


def _host(spec: ContainerSpec) -> _Rules:
    for field, name in (("hostname", spec.hostname), ("domainname", spec.domainname)):
        if name and not _HOST_NAME.fullmatch(name):
            yield field, f"{name!a} must be 1 to 64 of A-Z a-z 0-9 _ . - and begin and end with none of . -"
    if spec.shm_size < 1:
        yield "shm_size", f"{spec.shm_size} must be at least 1 byte"
    if not -1000 <= spec.oom_score_adj <= 1000:
        yield "oom_score_adj", f"{spec.oom_score_adj} must be -1000 to 1000"
    if spec.root_size < 0:
        yield "root_size", f"{spec.root_size} must be 0 (any) or the bytes that the root may grow by"
    if spec.log.max_size < 0:
        yield "log_max_size", f"{spec.log.max_size} must be 0 (unlimited) or the bytes of a file"
    if spec.log.max_files < 1:
        yield "log_max_files", f"{spec.log.max_files} must be at least 1"
    if not 0 <= spec.log.buffer <= MAX_LOG_BUFFER:
        yield "log_buffer_size", f"{spec.log.buffer} must be 0 (the container waits) to {MAX_LOG_BUFFER} bytes"
    if spec.log.buffer and spec.log.disabled:
        yield "log_buffer_size", f"{spec.log.buffer} must be 0 for a log that is not kept"


def _names(spec: ContainerSpec) -> _Rules:
    for index, server in enumerate(spec.names.servers):
        if not _is_address(server):
            yield f"dns_servers[{index}]", f"{server!a} must be an IP address"
    for field, words in (("dns_search", spec.names.search), ("dns_options", spec.names.options)):
        for index, word in enumerate(words):
            if not _WORD.fullmatch(word):
                yield f"{field}[{index}]", f"{word!a} must be one printable word"
    for index, (name, address) in enumerate(spec.names.extra_hosts):
        if not _WORD.fullmatch(name) or "#" in name:
            yield f"extra_hosts[{index}].name", f"{name!a} must be one host name"
        if address != HOST_GATEWAY and not _is_address(address):
            yield f"extra_hosts[{index}].address", f"{address!a} must be an IP address or {HOST_GATEWAY}"


def _ports(spec: ContainerSpec) -> _Rules:
    if spec.published_ports and spec.network_mode is not NetworkMode.BRIDGE:
        yield "published_ports", f"need a network of its own; with network mode {spec.network_mode} there can be none"
    if len(spec.published_ports) > MAX_PUBLISHED:
        yield "published_ports", f"{len(spec.published_ports)} are more than {MAX_PUBLISHED}"
        return
    for index, port in enumerate(spec.published_ports):
        for field, text in _port(port):
            yield f"published_ports[{index}].{field}", text


def _port(port: PublishedPort) -> _Rules:
    if port.host_ip and not _is_canonical(port.host_ip):
        yield "host_ip", f"{port.host_ip!a} must be an IP address in its canonical form, or empty"
    if port.host_ip == LOOPBACK_IPV6 and port.protocol is not PortProtocol.TCP:
        yield "host_ip", f"only TCP can be published on {LOOPBACK_IPV6}, not {port.protocol}"
    if not 1 <= port.container_port <= HIGHEST_PORT:
        yield "container_port", f"{port.container_port} must be 1 to {HIGHEST_PORT}"
    if port.host_port > HIGHEST_PORT:
        yield "host_port", f"{port.host_port} must be 0 to {HIGHEST_PORT}"
    if not port.host_port <= port.host_port_last <= (HIGHEST_PORT if port.host_port else 0):
        yield "host_port_last", f"{port.host_port_last} must not be below host_port nor above {HIGHEST_PORT}"


def _is_canonical(text: str) -> bool:
    return _is_address(text) and str(ip_address(text)) == text


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    # A zone (fe80::1%eth0) may hold anything.
    return "%" not in text
