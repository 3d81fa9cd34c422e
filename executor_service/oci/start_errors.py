"""What a runtime says when a process cannot be started, and Docker's exit code for it (126, 127, 128)."""

from __future__ import annotations

import json
import re

from common.errors import StartFailed

_MISSING = ("executable file not found", "executable file `", "no such file or directory", "cannot find")


def start_failed(container_id: str, message: str, *, command: str) -> StartFailed:
    """Classify the text of crun or runc, in Docker's order: not permitted, a directory, not a directory, missing."""
    reason = readable(message)
    text = reason.lower()
    hint = ""
    # crun's word for a command that is a directory, or anything else that is no file, is EPERM.
    not_a_file = "executable" in text and "operation not permitted" in text
    if "permission denied" in text or "is a directory" in text or not_a_file:
        code, hint = 126, f"; make {command!r} an executable file"
    elif "not a directory" in text:
        code, hint = 127, "; check that every mount joins a directory with a directory, or a file with a file"
    elif _names_command(text, command) and any(phrase in text for phrase in _MISSING):
        code, hint = 127, f"; {command!r} must exist in the container, or be found in its PATH"
    else:
        code = 128
    return StartFailed(f"container {container_id!r}: {reason}{hint}", exit_code=code)


def _names_command(text: str, command: str) -> bool:
    # crun 1.8 says only "open executable: No such file or directory" for a path.
    return (bool(command) and command.lower() in text) or "executable" in text


def readable(message: str) -> str:
    """The last error of what a runtime wrote: runc writes JSON or logfmt lines, crun plain text, both with noise
    before."""
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    for line in reversed(lines):
        if (found := _structured(line)) is not None:
            return found
    return re.sub(r"^(?:\d{4}-\d\d-\d\dT\S+: )", "", lines[-1]) if lines else "the runtime failed and gave no reason"


def _structured(line: str) -> str | None:
    if line.startswith("{"):
        try:
            entry = json.loads(line)
        except ValueError:
            return None
        return str(entry["msg"]) if isinstance(entry, dict) and entry.get("level") in {"error", "fatal"} else None
    match = re.search(r'level=(?:error|fatal) msg="((?:[^"\\]|\\.)*)"', line)
    return match.group(1).replace('\\"', '"') if match else None
