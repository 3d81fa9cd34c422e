"""Commits through the API: what the image says, what it is named, and what is told of it."""

from __future__ import annotations

import json

import grpc
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as container_pb
from slipway.v1 import image_service_pb2 as pb2

from common.errors import ResourceExhausted
from tests.fixtures.api import Api, refused


async def commit(api: Api, container: str, **fields: object) -> pb2.Image:
    request = pb2.CommitContainerRequest(container=container, **fields)  # type: ignore[arg-type]  # any field
    return (await api.images.CommitContainer(request)).image


async def box(api: Api) -> str:
    config = container_pb2.ContainerConfig(
        image="busybox", cmd=["serve", "-v"], env=["A=1", "B=2"], labels={"kind": "box"}, working_dir="/srv"
    )
    return (await api.containers.CreateContainer(container_pb.CreateContainerRequest(name="box", config=config))).id


async def test_the_image_is_what_the_container_is_but_for_what_is_asked(api: Api) -> None:
    container_id = await box(api)
    asked = pb2.ImageConfig(cmd=["other"], env=["B=3"], labels={"more": "yes"}, exposed_ports=["80/tcp"])
    image = await commit(api, "box", reference="team/app:2", config=asked, author="me", comment="works")
    assert list(image.repo_tags) == ["team/app:2"]
    assert (list(image.config.cmd), image.config.working_dir) == (["other"], "/srv")
    assert set(image.config.env) == {"A=1", "B=3"}
    assert dict(image.config.labels) == {"kind": "box", "more": "yes"}
    assert list(image.config.exposed_ports) == ["80/tcp"]
    [sent] = api.executor.commits
    assert (sent.container_id, sent.author, sent.comment, sent.pause) == (container_id, "me", "works", True)
    assert json.loads(sent.config)["Cmd"] == ["other"]
    assert (await api.actions())[-1] == "container commit"
    assert (await api.images.InspectImage(pb2.InspectImageRequest(image="team/app:2"))).image.id == image.id


async def test_a_commit_without_a_pause_or_a_name(api: Api) -> None:
    await box(api)
    image = await commit(api, "box", pause=False)
    assert (list(image.repo_tags), list(image.config.cmd)) == ([], ["serve", "-v"])
    assert not api.executor.commits[0].pause


async def test_what_cannot_be_committed_is_told(api: Api) -> None:
    await box(api)
    assert (await refused(commit(api, "nobody"))).code is grpc.StatusCode.NOT_FOUND
    assert "reference" in (await refused(commit(api, "box", reference="Not A Name"))).violations
    wrong = await refused(commit(api, "box", config=pb2.ImageConfig(env=["=x"])))
    assert "config" in wrong.violations
    assert api.executor.commits == []
    api.executor.fault("CommitContainer", error=ResourceExhausted("the disk is full"))
    assert (await refused(commit(api, "box"))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "container commit" not in await api.actions()
