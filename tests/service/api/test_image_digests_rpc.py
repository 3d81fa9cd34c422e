"""What an image was pulled by: shown, found, removed, and taken along when a name moves."""

from __future__ import annotations

import grpc
from slipway.v1 import image_service_pb2 as pb2

from tests.fixtures.api import Api, refused

MANIFEST = "sha256:" + "3" * 64  # what the fake executor says
INDEX = "sha256:" + "a" * 64
REPOSITORY = "127.0.0.1:5000/team/app"
BY_MANIFEST, BY_INDEX = f"{REPOSITORY}@{MANIFEST}", f"{REPOSITORY}@{INDEX}"


async def pull(api: Api, reference: str) -> pb2.Image:
    answers = [each async for each in api.images.PullImage(pb2.PullImageRequest(reference=reference), timeout=60)]
    return answers[-1].image.image


async def remove(api: Api, image: str, *, force: bool = False) -> pb2.RemoveImageResponse:
    return await api.images.RemoveImage(pb2.RemoveImageRequest(image=image, force=force))


async def test_shown_found_and_listed(api: Api) -> None:
    image = await pull(api, f"{REPOSITORY}:1")
    assert list(image.repo_digests) == [BY_MANIFEST]
    for text in (BY_MANIFEST, f"{REPOSITORY}:9@{MANIFEST}"):
        found = await api.images.InspectImage(pb2.InspectImageRequest(image=text))
        assert found.image == image
    box = await api.create(image=BY_MANIFEST)
    assert (await api.inspect(box)).image_id == image.id
    for pattern in (BY_MANIFEST, REPOSITORY, f"{REPOSITORY}@*", "127.0.0.1:5000/*/app"):
        listed = await api.images.ListImages(pb2.ListImagesRequest(reference=[pattern]))
        assert [each.id for each in listed.images] == [image.id], pattern
    for text in (BY_INDEX, f"other@{MANIFEST}"):
        refusal = await refused(api.images.InspectImage(pb2.InspectImageRequest(image=text)))
        assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_pulled_by_the_digest_of_an_index(api: Api) -> None:
    image = await pull(api, BY_INDEX)
    assert (list(image.repo_tags), list(image.repo_digests)) == ([], [BY_MANIFEST, BY_INDEX])
    for text in (BY_INDEX, BY_MANIFEST):
        assert (await api.images.InspectImage(pb2.InspectImageRequest(image=text))).image.id == image.id
    assert list((await remove(api, BY_INDEX)).untagged) == [BY_INDEX]
    gone = await remove(api, BY_MANIFEST)
    assert (list(gone.untagged), list(gone.deleted)) == ([BY_MANIFEST], [image.id])


async def test_pulled_by_a_tag_that_means_an_index(api: Api) -> None:
    image = await pull(api, "me/multi:1")
    assert list(image.repo_digests) == ["me/multi@sha256:" + "b" * 64, f"me/multi@{MANIFEST}"]


async def test_last_tag_takes_its_digests_along(api: Api) -> None:
    image = await pull(api, f"{REPOSITORY}:1")
    for name in (f"{REPOSITORY}:2", "other:1"):
        await api.images.TagImage(pb2.TagImageRequest(image=image.id, target=name))
    assert list((await remove(api, f"{REPOSITORY}:1")).untagged) == [f"{REPOSITORY}:1"]
    assert set((await remove(api, f"{REPOSITORY}:2")).untagged) == {f"{REPOSITORY}:2", BY_MANIFEST}
    refusal = await refused(api.images.InspectImage(pb2.InspectImageRequest(image=BY_MANIFEST)))
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert list((await remove(api, "other:1")).deleted) == [image.id]


async def test_digest_is_taken_from_what_keeps_its_tag(api: Api) -> None:
    image = await pull(api, f"{REPOSITORY}:1")
    assert list((await remove(api, BY_MANIFEST)).untagged) == [BY_MANIFEST]
    left = (await api.images.InspectImage(pb2.InspectImageRequest(image=image.id))).image
    assert (list(left.repo_tags), list(left.repo_digests)) == ([f"{REPOSITORY}:1"], [])


async def test_digest_stays_when_the_name_moves_and_goes_by_id(api: Api) -> None:
    image = await pull(api, f"{REPOSITORY}:1")
    await api.images.TagImage(pb2.TagImageRequest(image="busybox", target=f"{REPOSITORY}:1"))
    left = (await api.images.InspectImage(pb2.InspectImageRequest(image=BY_MANIFEST))).image
    assert (left.id, list(left.repo_tags)) == (image.id, [])
    gone = await remove(api, image.id)
    assert (list(gone.untagged), list(gone.deleted)) == ([BY_MANIFEST], [image.id])
    assert (await refused(remove(api, BY_MANIFEST))).code is grpc.StatusCode.NOT_FOUND


async def test_an_image_has_so_many_digests_and_no_more(api: Api) -> None:
    image = await pull(api, f"{REPOSITORY}:1")
    for number in range(15):
        await pull(api, f"{REPOSITORY}@sha256:{number:064x}")
    refusal = await refused(pull(api, BY_INDEX))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TOO_MANY_NAMES")
    for number in range(31):
        await api.images.TagImage(pb2.TagImageRequest(image=image.id, target=f"name{number}"))
    # All of them are gone in one commit.
    gone = await remove(api, image.id, force=True)
    assert (len(gone.untagged), list(gone.deleted)) == (32 + 16, [image.id])
