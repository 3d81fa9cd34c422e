"""What a node's executor is told when its record changes."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from api_service.nodes.registry import Node
from api_service.records.node import NodeState, NodeStatus
from tests.fixtures.nodes import node_record


class _Told:
    def __init__(self) -> None:
        self.executor_id = ""
        self.ready = False
        self.anew = 0

    def meant_for(self, executor_id: str) -> None:
        self.executor_id = executor_id

    def expect(self, *, ready: bool) -> None:
        self.ready = ready

    def connect_anew(self) -> None:
        self.anew += 1


@pytest.mark.parametrize("following", [False, True])
def test_one_that_is_back_is_connected_with_anew_but_by_who_has_just_reached_it(following: bool) -> None:
    told: Any = _Told()
    follower: Any = SimpleNamespace(following=following)
    observer: Any = None
    node = Node(record=node_record("n1"), executor=told, follower=follower, observer=observer)
    assert (told.ready, told.anew) == (True, 0)
    for state in (NodeState.UNREACHABLE, NodeState.LOST, NodeState.READY, NodeState.READY):
        status = NodeStatus(state=state, since=0)
        node.record = dataclasses.replace(node.record, status=status, executor_id="id")
        assert told.ready is (state is NodeState.READY)
    assert told.executor_id == "id"
    assert told.anew == (0 if following else 1)
