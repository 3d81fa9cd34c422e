"""The image of a container that is to be created: one that is here, or one that is taken from its registry first.

Source: Docker's clients, which pull an image that the daemon does not have (`docker create --pull`).
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from api_service.deadline import Deadline
from api_service.executor_client.images import RegistryCredentials
from api_service.nodes.registry import Node
from api_service.operations.engine import Engine
from api_service.operations.image_pull import PullRequest, pull_image
from api_service.operations.image_resolve import no_such_image, resolve_image
from api_service.operations.platform import is_for
from api_service.operations.pulls_together import PulledRecord
from api_service.records.image import ImageRecord
from api_service.validation.references import InvalidReference, normalise_reference
from common.errors import Aborted, FailedPrecondition, NotFound, SlipwayError, Violation


class PullPolicy(Enum):
    """`DEFAULT` is `MISSING` where a registry is configured for the name, else `NEVER`."""

    DEFAULT = auto()
    MISSING = auto()
    ALWAYS = auto()
    NEVER = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageWish:
    """What a create says of its image; `platform` may be empty."""

    text: str
    platform: str = ""
    policy: PullPolicy = PullPolicy.DEFAULT
    credentials: RegistryCredentials = field(default_factory=RegistryCredentials)


def validate_pull(wish: ImageWish) -> list[Violation]:
    if wish.policy is not PullPolicy.ALWAYS or _is_name(wish.text):
        return []
    why = "PULL_POLICY_ALWAYS takes the image from its registry, and an id names none; give a name in config.image"
    return [Violation(field="pull_policy", description=why)]


async def obtain_image(
    engine: Engine, wish: ImageWish, node: Node, *, lost: ImageRecord | None, deadline: Deadline
) -> ImageRecord:
    """`lost`: what the last time gave was removed before the container had it. Raises NotFound, InvalidArgument, and
    what a pull raises."""
    policy = _effective(engine, wish)
    if policy is PullPolicy.NEVER:
        if lost is not None:
            raise _missing(wish)
        return await _here(engine, wish)
    if policy is PullPolicy.MISSING and lost is None:
        try:
            image = await resolve_image(engine, wish.text, field="config.image")
        except NotFound:
            image = None
        if image is not None and (not wish.platform or is_for(wish.platform, image)):
            if node.name in image.nodes or not (pinned := _pinned(wish, image)):
                return image
            # What the name means here is what it means on the other nodes, whatever the registry has by now.
            wish = replace(wish, text=pinned)
    async with deadline.enforced(f"pull the image {wish.text}"):
        return await _pulled(engine, wish, node, deadline)


async def image_holders(engine: Engine, wish: ImageWish) -> frozenset[str] | None:
    """The nodes a container of it can be made on; None: any, because each can get it, or nobody has it."""
    policy = _effective(engine, wish)
    if policy is PullPolicy.ALWAYS:
        return None
    try:
        image = await resolve_image(engine, wish.text, field="config.image")
    except NotFound:
        return None
    if policy is PullPolicy.MISSING and (_pinned(wish, image) or (wish.platform and not is_for(wish.platform, image))):
        return None
    return frozenset(image.nodes)


def is_lost(error: SlipwayError, image_id: str) -> bool:
    """Whether the node refused a container because the image was removed, or is being removed."""
    gone = isinstance(error, NotFound) or (
        isinstance(error, FailedPrecondition) and error.reason == "IMAGE_BEING_REMOVED"
    )
    return gone and (error.resource_type, error.resource_name) == ("image", image_id)  # type: ignore[attr-defined]


def lost_again(wish: ImageWish) -> Aborted:
    return Aborted(f"image {wish.text}: others remove it as soon as it is there; repeat the request")


def _effective(engine: Engine, wish: ImageWish) -> PullPolicy:
    if not _is_name(wish.text):
        return PullPolicy.NEVER
    if wish.policy is not PullPolicy.DEFAULT:
        return wish.policy
    configured = engine.registries.is_configured(normalise_reference(wish.text))
    return PullPolicy.MISSING if configured else PullPolicy.NEVER


async def _here(engine: Engine, wish: ImageWish) -> ImageRecord:
    try:
        return await resolve_image(engine, wish.text, field="config.image")
    except NotFound as error:
        raise _missing(wish) from error


def _missing(wish: ImageWish) -> NotFound:
    """What a client can do about it depends on why nothing was pulled."""
    if not _is_name(wish.text):
        return no_such_image(wish.text)
    if wish.policy is PullPolicy.NEVER:
        return no_such_image(
            wish.text, "pull_policy is PULL_POLICY_NEVER: ask for PULL_POLICY_MISSING to have it pulled"
        )
    return no_such_image(
        wish.text,
        "it was not pulled because the name has no registry: set pull_policy to PULL_POLICY_MISSING to take it from "
        "docker.io, or give the service a default_registry",
    )


async def _pulled(engine: Engine, wish: ImageWish, node: Node, deadline: Deadline) -> ImageRecord:
    request = PullRequest(reference=wish.text, platform=wish.platform, credentials=wish.credentials, node=node.name)
    found: ImageRecord | None = None
    async with aclosing(pull_image(engine, request, deadline=deadline)) as answers:
        async for answer in answers:
            if isinstance(answer, PulledRecord):
                found = answer.image
    assert found is not None
    return found


def _pinned(wish: ImageWish, image: ImageRecord) -> str:
    """The same image by its digest, which any node can pull; empty for one that came from elsewhere."""
    repository = normalise_reference(wish.text).familiar_name
    return next((each for each in image.digests if normalise_reference(each).familiar_name == repository), "")


def _is_name(text: str) -> bool:
    """Of a registry's image. `sha256:…` is meant as an id, whole or not."""
    try:
        normalise_reference(text)
    except InvalidReference:
        return False
    return not text.startswith("sha256:")
