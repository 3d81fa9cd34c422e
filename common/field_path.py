"""A protovalidate field path as text: `config.env[2]`, `networking_config.endpoints_config["bridge"].mac_address`."""

from __future__ import annotations

import json
from typing import Any


def field_path(path: Any) -> str:
    """`path` is a `buf.validate.FieldPath`; absent for a rule about the whole message, then the answer is empty."""
    text = ""
    for element in path.elements if path is not None else ():
        text += f".{element.field_name}" if text else element.field_name
        if element.subscript is not None:
            text += f"[{json.dumps(element.subscript.value)}]"
    return text
