"""The state as bytes: JSON with a format number, a generation and a CRC32C over the body.

Reading is strict: what does not verify is no state.  The schema of the values is their own type annotations.
"""

from __future__ import annotations

import json

import crc32c
from pydantic import TypeAdapter, ValidationError

from controlplane.domain.state import State

FORMAT = 1
_ADAPTER: TypeAdapter[State] = TypeAdapter(State)


class BadStateError(ValueError):
    """These bytes are no state; the message says why."""


def encode(state: State) -> bytes:
    """``state`` as one JSON document; sets are sorted so that equal states are equal bytes."""
    body = _ADAPTER.dump_python(state, mode="json")
    text = json.dumps(_sorted_sets(body), sort_keys=True, separators=(",", ":"))
    head = {"format": FORMAT, "generation": state.generation, "crc32c": f"{crc32c.crc32c(text.encode()):08x}"}
    return (json.dumps(head) + "\n" + text + "\n").encode()


def _sorted_sets(body: dict[str, object]) -> dict[str, object]:
    """Sort what was a frozenset; pydantic renders it in arbitrary order."""
    for drive in _objects(body["drives"]):
        drive["clean"] = sorted(drive["clean"])  # type: ignore[call-overload]
    for volume in _objects(body["volumes"]):
        volume["unscrubbed"] = sorted(volume["unscrubbed"], key=lambda ref: (ref["drive"], ref["index"]))  # type: ignore[call-overload]
    body["doomed"] = sorted(body["doomed"])  # type: ignore[call-overload]
    return body


def _objects(mapping: object) -> list[dict[str, object]]:
    assert isinstance(mapping, dict)
    return list(mapping.values())


def decode(raw: bytes) -> State:
    """The state in ``raw``; raises ``BadStateError``."""
    try:
        first, rest = raw.split(b"\n", 1)
        head = json.loads(first)
        text = rest.rstrip(b"\n")
        if head["format"] != FORMAT:
            raise BadStateError(f"format {head['format']} is not {FORMAT}")
        if f"{crc32c.crc32c(text):08x}" != head["crc32c"]:
            raise BadStateError("its checksum does not match")
        state = _ADAPTER.validate_json(text)
        if state.generation != head["generation"]:
            raise BadStateError("its generation does not match")
        return state
    except (ValueError, KeyError, TypeError, ValidationError) as problem:
        raise BadStateError(str(problem) or type(problem).__name__) from problem
