"""`node.labels.zone==a`, `node.name!=n1`: what a container demands of its node. Source: Swarm's placement constraints,
https://docs.docker.com/reference/cli/docker/service/create/#constraint
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from api_service.records.node import NodeRecord
from common.errors import Violation

_LABELS = "node.labels."
_KEYS = ("node.name", "node.hostname", "node.platform.os", "node.platform.arch")
_CONSTRAINT = re.compile(r"\s*([a-zA-Z0-9._/-]{1,140})\s*(==|!=)\s*(\S(?:.{0,1022}\S)?)\s*")
_MOST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """`label`: the key of one of a node's labels, empty for what else `key` names. `folded`: the value, in one case."""

    key: str
    label: str
    equal: bool
    folded: str
    text: str

    def holds(self, node: NodeRecord) -> bool:
        """Upper and lower case are the same, as in Swarm. What a node does not have is empty."""
        value = node.labels.get(self.label, "") if self.label else _value(self.key, node)
        return (value.casefold() == self.folded) == self.equal

    def __str__(self) -> str:
        return self.text


def parse_constraint(text: str) -> Constraint:
    """Raises ValueError."""
    matched = _CONSTRAINT.fullmatch(text)
    if matched is None:
        raise ValueError(f"{text[:64]!r} is not KEY==VALUE or KEY!=VALUE, like 'node.labels.zone==a'")
    key = matched[1]
    if key not in _KEYS and not (key.startswith(_LABELS) and len(key) > len(_LABELS)):
        raise ValueError(f"{key[:64]!r} is nothing of a node; there are {', '.join(_KEYS)} and {_LABELS}KEY")
    return Constraint(
        key=key,
        label=key.removeprefix(_LABELS) if key.startswith(_LABELS) else "",
        equal=matched[2] == "==",
        folded=matched[3].casefold(),
        text=f"{key}{matched[2]}{matched[3]}",
    )


def validate_constraints(texts: Sequence[str], field: str) -> list[Violation]:
    if len(texts) > _MOST:
        return [Violation(field=field, description=f"{len(texts)} constraints are more than the {_MOST} allowed")]
    broken = []
    for index, text in enumerate(texts):
        try:
            parse_constraint(text)
        except ValueError as error:
            broken.append(Violation(field=f"{field}[{index}]", description=str(error)))
    return broken


def _value(key: str, node: NodeRecord) -> str:
    return {
        "node.name": node.name,
        "node.hostname": node.description.hostname,
        "node.platform.os": node.description.os,
        "node.platform.arch": node.description.architecture,
    }[key]
