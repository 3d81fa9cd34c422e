"""Locks, jobs, deadlines, and image configurations as they come."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
from google.protobuf.message import Message

from api_service.conversion.image import image_rules
from api_service.deadline import Deadline
from api_service.executor_client.images import StoredImage
from api_service.operations.container_locks import ContainerLocks
from api_service.operations.image_record import encode_image_config, image_record
from api_service.operations.jobs import Jobs, whole
from api_service.records.config import ImageConfig
from api_service.servicers.call import deadline_of
from api_service.store.claims import LocalClaims
from common.errors import Aborted, DeadlineExceeded, Unavailable, Violation
from common.request_rules import RequestRules


async def test_lock_is_fair_and_forgotten() -> None:
    locks, order = ContainerLocks(LocalClaims()), []

    async def verb(number: int) -> None:
        async with locks.hold("a", "start", Deadline.after(5)):
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(verb(number) for number in range(10)))
    assert order == list(range(10))
    assert locks._held == {}


async def test_who_waits_in_vain_is_told_for_what() -> None:
    locks = ContainerLocks(LocalClaims())
    async with locks.hold("a", "stop", Deadline.after(5)):
        with pytest.raises(Aborted, match=r"cannot start it, a stop has been running for") as caught:
            async with locks.hold("a", "start", Deadline.after(0.01)):
                raise AssertionError("held twice")
        async with locks.hold("b", "start", Deadline.after(0.01)):
            pass
    assert caught.value.metadata["running"] == "stop"
    assert locks._held == {}


async def test_who_waits_for_another_replica_is_told_for_what() -> None:
    here = LocalClaims()
    locks, others = ContainerLocks(here), ContainerLocks(LocalClaims(beside=here))
    async with others.hold("a", "stop", Deadline.after(5)):
        with pytest.raises(Aborted, match=r"cannot start it, a stop has not ended on another replica in") as caught:
            async with locks.hold("a", "start", Deadline.after(0.01)):
                raise AssertionError("held twice")
    assert caught.value.metadata["running"] == "stop"
    async with locks.hold("a", "start", Deadline.after(5)):
        pass


async def test_deadline_names_what_was_late() -> None:
    with pytest.raises(DeadlineExceeded, match="create the container: not done"):
        async with Deadline.after(0).enforced("create the container"):
            await asyncio.Event().wait()


async def test_deadline_leaves_other_timeouts_alone() -> None:
    with pytest.raises(TimeoutError):
        async with Deadline.after(5).enforced("x"):
            raise TimeoutError


async def test_job_goes_on_without_its_caller() -> None:
    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await go_on.wait()
        done.set()

    async with Jobs(grace=5) as jobs:
        caller = asyncio.create_task(jobs.finish(work(), name="w"))
        await begun.wait()
        caller.cancel()
        await asyncio.wait([caller])
        go_on.set()
    assert done.is_set()


async def test_end_waits_for_jobs_and_then_does_not() -> None:
    cancelled = asyncio.Event()

    async def stuck() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with Jobs(grace=0.01) as jobs:
        jobs.background(stuck(), name="s")
        await asyncio.sleep(0)
    assert cancelled.is_set()
    with pytest.raises(Unavailable):
        jobs.start(stuck(), name="late")


async def test_whole_step_is_ended_before_the_cancellation() -> None:
    begun, go_on, steps = asyncio.Event(), asyncio.Event(), []

    async def step() -> None:
        begun.set()
        await go_on.wait()
        steps.append("done")

    caller = asyncio.create_task(whole(step()))
    await begun.wait()
    caller.cancel()
    await asyncio.sleep(0)
    assert not caller.done()
    go_on.set()
    await asyncio.wait([caller])
    assert caller.cancelled()
    assert steps == ["done"]


def stored(config: bytes) -> StoredImage:
    image_id = f"sha256:{hashlib.sha256(config).hexdigest()}"
    return StoredImage(id=image_id, config=config, layers=(), size=1, names=("ok", "NOT OK", "ok:latest"))


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("2023-11-14T22:13:20Z", 1_700_000_000_000_000_000),
        ("2023-11-14T23:13:20.25+01:00", 1_700_000_000_250_000_000),
        ("2023-11-14T22:13:20.123456789Z", 1_700_000_000_123_456_000),
        ("0001-01-01T00:00:00Z", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_when_an_image_was_made(created: str, expected: int | None) -> None:
    assert image_record(stored(f'{{"created": "{created}"}}'.encode()), node="n").created == expected


def test_names_that_are_none_are_left_out() -> None:
    assert image_record(stored(b"{}"), node="n").names == ("ok:latest",)


def test_config_there_and_back() -> None:
    config = ImageConfig(
        user="u", env=("A=1",), entrypoint=("e",), cmd=("c",), working_dir="/w", labels={"k": "v"},
        exposed_ports=("80/tcp",), stop_signal="INT",
    )  # fmt: skip
    assert image_record(stored(b'{"config": %b}' % encode_image_config(config)), node="n").config == config


class _Context:
    def __init__(self, remaining: float | None) -> None:
        self._remaining = remaining

    def time_remaining(self) -> float | None:
        return self._remaining


@pytest.mark.parametrize(("remaining", "expected"), [(None, 120.0), (9e9, 120.0), (3.0, 3.0)])
def test_client_without_a_deadline_gets_one(remaining: float | None, expected: float) -> None:
    context: Any = _Context(remaining)
    assert deadline_of(context).remaining == pytest.approx(expected, abs=1)


def test_the_rules_for_an_image_are_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = RequestRules()
    asked: list[str] = []

    def violations(message: Message) -> list[Violation]:
        asked.append(type(message).__name__)
        return RequestRules.violations(rules, message)

    monkeypatch.setattr(rules, "violations", violations)
    broken_by = image_rules(rules)
    wrong = ImageConfig(env=("=x",), labels={"a": "b"})
    assert [each.field for each in broken_by(wrong)] == [each.field for each in broken_by(wrong)] == ["config.env[0]"]
    assert broken_by(ImageConfig(env=("A=x",))) == []
    assert len(asked) == 2
