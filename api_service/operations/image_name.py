"""A name to be given to an image."""

from __future__ import annotations

from api_service.validation.references import InvalidReference, normalise_reference
from common.errors import InvalidArgument, Violation


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
