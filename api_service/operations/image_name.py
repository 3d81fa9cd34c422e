"""A name to be given to an image."""

from __future__ import annotations

from api_service.validation.references import InvalidReference, normalise_reference
from common.errors import FailedPrecondition, InvalidArgument, Violation

MAX_NAMES = 32  # of one image: removing it and all of them is one commit, and so of its
MAX_DIGESTS = 16


def image_name(text: str, *, field: str) -> str:
    """`repository:tag`, the tag `latest` when there is none. Raises InvalidArgument."""
    try:
        reference = normalise_reference(text)
    except InvalidReference as error:
        raise InvalidArgument(violations=[Violation(field=field, description=str(error))]) from error
    if reference.digest:
        why = f"{text[:80]!r} has a digest, which is the image's own; a name to give is repository[:tag]"
        raise InvalidArgument(violations=[Violation(field=field, description=why)])
    return reference.familiar


def refuse_more_names(image_id: str, count: int) -> None:
    """Raises FailedPrecondition (`TOO_MANY_NAMES`) when an image is to have `count` names and may not."""
    _refuse_more(image_id, count, MAX_NAMES, "names")


def refuse_more_digests(image_id: str, count: int) -> None:
    """As `refuse_more_names`."""
    _refuse_more(image_id, count, MAX_DIGESTS, "digests")


def _refuse_more(image_id: str, count: int, limit: int, kind: str) -> None:
    if count > limit:
        raise FailedPrecondition(
            f"image {image_id}: would have {count} {kind}, at most {limit} are possible; remove some first",
            resource_type="image",
            resource_name=image_id,
            reason="TOO_MANY_NAMES",
        )
