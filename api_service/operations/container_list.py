"""Which containers there are, newest first, a page at a time. From the records alone."""

from __future__ import annotations

import base64
import binascii
import contextlib
import posixpath
import re
from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice

from api_service.operations.engine import Engine
from api_service.records.container import ContainerRecord, Status
from api_service.records.container_index import ACTIVE, Place, Term, place_of, with_label, with_status
from api_service.records.health import HealthStatus
from api_service.records.image import ImageRecord
from api_service.records.mount import MountPoint, MountType
from api_service.validation.references import (
    InvalidReference,
    full_image_id,
    image_id_prefix,
    normalise_reference,
)
from common.errors import InvalidArgument, Violation

MAX_PAGE = 1000
_ENDED = frozenset({Status.EXITED, Status.DEAD})

_Check = Callable[[ContainerRecord], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerFilter:
    """Values of one field are alternatives, fields restrict each other; `labels` all hold. `before` and `since` name
    containers, `volumes` volumes or paths inside containers."""

    ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    ancestors: tuple[str, ...] = ()
    statuses: frozenset[Status] = field(default_factory=frozenset)
    exited: tuple[int, ...] = ()
    networks: tuple[str, ...] = ()
    before: str = ""
    since: str = ""
    healths: frozenset[HealthStatus] = field(default_factory=frozenset)
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """`next_page_token` is empty on the last."""

    containers: Sequence[ContainerRecord]
    next_page_token: str


async def list_containers(
    engine: Engine, wanted: ContainerFilter, *, all: bool, page_size: int = 0, page_token: str = ""
) -> Page:
    """`page_size` 0: the largest. Raises InvalidArgument for a token never given, NotFound for `before`, `since`."""
    begin = _parse_token(page_token) if page_token else None
    before = place_of(await engine.containers.find(wanted.before)) if wanted.before else None
    since = place_of(await engine.containers.find(wanted.since)) if wanted.since else None
    images = await _images(engine, wanted.ancestors)
    running_only = not (all or wanted.statuses or wanted.exited)
    size = page_size or MAX_PAGE
    records = await engine.containers.newest_first(
        _having(wanted, running_only=running_only),
        before=min(filter(None, (begin, before)), default=None),
        since=since,
    )
    for check in _checks(wanted, images):
        records = filter(check, records)
    found = list(islice(records, size + 1))
    page = found[:size]
    return Page(containers=page, next_page_token=_token(page[-1]) if len(found) > size else "")


def _having(wanted: ContainerFilter, *, running_only: bool) -> Sequence[Set[Term]]:
    """What can be looked up."""
    having: list[Set[Term]] = [{with_label(text)} for text in wanted.labels]
    if wanted.statuses:
        having.append({with_status(status) for status in wanted.statuses})
    if running_only:
        having.append({ACTIVE})
    return having


def _checks(wanted: ContainerFilter, images: Collection[str]) -> Sequence[_Check]:
    """What has to be looked at. There may be tens of thousands to look at, so only what is asked for is."""
    names = "|".join(re.escape(part.removeprefix("/")) for part in wanted.names)
    named = re.compile(names).search
    checks: Sequence[tuple[Collection[object], _Check]] = (
        (wanted.ids, lambda record: record.id.startswith(wanted.ids)),
        (wanted.names, lambda record: named(record.name) is not None),
        (wanted.exited, lambda record: record.status in _ENDED and record.state.exit_code in wanted.exited),
        (wanted.networks, lambda record: any(_is_on(record, network) for network in wanted.networks)),
        (wanted.ancestors, lambda record: record.image_id in images),
        (wanted.healths, lambda record: health_of(record) in wanted.healths),
        (wanted.volumes, lambda record: any(_is_at(mount, wanted.volumes) for mount in record.mount_points)),
    )
    return [check for asked, check in checks if asked]


def _is_on(record: ContainerRecord, network: str) -> bool:
    """By the mode, or by the name or id of a network it is attached to."""
    endpoints = record.networking_config.endpoints
    ids = {settings.network_id for settings in endpoints.values()}
    return network == record.host_config.network_mode or network in endpoints or network in ids


def health_of(record: ContainerRecord) -> HealthStatus:
    """`none` without a check, and unless it runs."""
    return record.state.health.status if record.state.health is not None else HealthStatus.NONE


def _is_at(mount: MountPoint, volumes: Sequence[str]) -> bool:
    name = mount.source if mount.type is MountType.VOLUME else ""
    destination = posixpath.normpath(mount.destination)
    return any(each and (each == name or posixpath.normpath(each) == destination) for each in volumes)


async def _images(engine: Engine, ancestors: Sequence[str]) -> Collection[str]:
    """Ids of the images meant: whole ids, names, or the beginnings of ids, in this order. An unknown one means none."""
    if not ancestors:
        return ()
    known = [image for image in await engine.images.all() if not image.condemned]
    return {image_id for text in ancestors for image_id in _meant(text, known)}


def _meant(text: str, known: Sequence[ImageRecord]) -> Collection[str]:
    if (image_id := full_image_id(text)) is not None:
        return [image_id]
    with contextlib.suppress(InvalidReference):
        name = normalise_reference(text).familiar
        if named := [image.id for image in known if name in image.names]:
            return named
    prefix = image_id_prefix(text)
    return [image.id for image in known if prefix and image.id.removeprefix("sha256:").startswith(prefix)]


def _token(record: ContainerRecord) -> str:
    return base64.urlsafe_b64encode(f"{record.created_at} {record.id}".encode()).decode()


def _parse_token(token: str) -> Place:
    try:
        created_at, _, container_id = base64.urlsafe_b64decode(token.encode()).decode().partition(" ")
        return int(created_at), container_id
    except (ValueError, binascii.Error) as error:
        what = "is not a token of this list; give next_page_token of the answer before, or leave it empty"
        raise InvalidArgument(violations=[Violation(field="page_token", description=what)]) from error
