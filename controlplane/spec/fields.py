"""The kinds of value that keys of array.yaml take, each with its check and its line in the JSON Schema.

A check raises ``PydanticCustomError`` of a ``ws_...`` kind, which ``problems`` turns into a code.  Checks here see
one value; what needs two values is in ``checks``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Final, Literal, NoReturn

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from controlplane.domain import names
from controlplane.domain.units import UnitError, parse_rate, parse_size, show_rate, show_size
from controlplane.spec import limits
from controlplane.spec.limits import Limit
from controlplane.spec.problems import nearest, shown

_SIZE_PATTERN: Final = r"^\s*[0-9]+(\.[0-9]+)?\s*([KMGTP]iB|[kMGTP]?B)\s*$"
_RATE_PATTERN: Final = r"^\s*[0-9]+(\.[0-9]+)?\s*([KMGTP]iB|[kMGTP]?B|[kMGT]?bit)/s\s*$"
_SHARE: Final = re.compile(r"([0-9]{1,3})%")
_METRES: Final = re.compile(r"([0-9]{1,5})m")
_RANGE: Final = re.compile(r"([0-9]{1,4})-([0-9]{1,4})")
_LONG: Final = 40


def fail(kind: str, message: str, why: str, remedy: str) -> NoReturn:
    """Raise the error of one value; ``message`` is a clause that follows the path of the key."""
    raise PydanticCustomError(kind, "{message}", {"message": message, "why": why, "remedy": remedy})


def _named(kind: str, check: Callable[[str], str], remedy: str) -> AfterValidator:
    def run(text: str) -> str:
        try:
            return check(text)
        except names.NamingError as error:
            fail(kind, f"{shown(text)} cannot stand here", str(error), remedy)

    return AfterValidator(run)


def _quantity(parse: Callable[[str], int], word: str, example: str) -> Callable[[object], int]:
    def run(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, str):
            remedy = f"write the unit too, as in {example}"
            fail("ws_quantity", f"{shown(value)} is not a {word}", f"a {word} is a number with its unit", remedy)
        if len(value) > _LONG:
            fail("ws_quantity", f"{shown(value)} is not a {word}", "it is too long to be one", f"write {example}")
        try:
            amount = parse(value)
        except UnitError as error:
            fail("ws_quantity", f"{shown(value)} is not a {word}", str(error), _unit_hint(value, word, example))
        if not 0 < amount <= limits.SIZE_MAX_BYTES.value:
            why = "it must be more than nothing and fit into 63 bits"
            fail("ws_range", f"{shown(value)} is out of range", why, f"write it like {example}")
        return amount

    return run


def _unit_hint(text: str, word: str, example: str) -> str:
    """For ``2T``, ``2G``, ``2tib``: the two things it may mean, or the spelling it should have."""
    bare = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kKMGTP])(i?[bB]?)(/s)?\s*", text)
    if not bare:
        return f"write it like {example}"
    number, letter, rest, per = bare.groups()
    tail = "/s" if word == "rate" else per or ""
    binary = f"{number}{letter.upper()}iB{tail}"
    if rest.lower() == "ib":
        return f"write {binary}"
    decimal = f"{number}{'k' if letter in 'kK' else letter}B{tail}"
    return f"write {binary} (powers of 1024) or {decimal} (powers of 1000)"


def _step(kind: str, limit: Limit, show: Callable[[int], str]) -> AfterValidator:
    def run(amount: int) -> int:
        step = limit.value
        if amount >= step and amount % step == 0:
            return amount
        below, above = amount // step * step, -(-amount // step) * step
        remedy = f"use {show(below)} or {show(above)}" if below and below != above else f"use {show(max(step, above))}"
        said = "too low" if amount < step else "between two steps"
        fail(kind, f"{show(amount)} is {said}", f"the engine counts in steps of {show(step)} ({limit.source})", remedy)

    return AfterValidator(run)


def _chunk(amount: int) -> int:
    low, high = limits.CHUNK_MIN_BYTES, limits.CHUNK_MAX_BYTES
    if amount & (amount - 1) or not low.value <= amount <= high.value:
        why = f"a chunk is a power of two, {show_size(low.value)} to {show_size(high.value)} ({high.source})"
        fail(
            "ws_chunk", f"{show_size(amount)} cannot be a chunk", why, "use 64KiB unless you measured something better"
        )
    return amount


def _cores(value: object) -> list[int]:
    if not isinstance(value, list):
        fail("ws_type", f"{shown(value)} stands where a list belongs", "cores is a list", 'write [1, 2] or ["1-8"]')
    found: list[int] = []
    for item in value:
        if isinstance(item, int) and not isinstance(item, bool):
            first = last = item
        elif isinstance(item, str) and (match := _RANGE.fullmatch(item)):
            first, last = int(match[1]), int(match[2])
        else:
            fail("ws_type", f"{shown(item)} is not a core", "a core is a number or a range", "write 3 or 2-5")
        if not 0 <= first <= last < limits.CORES.value:
            why = f"cores run from 0 to {limits.CORES.value - 1}, and ranges upwards ({limits.CORES.source})"
            fail("ws_range", f"{shown(item)} is out of range", why, "see lscpu for the cores of the node")
        for core in range(first, last + 1):
            if core in found:
                fail("ws_range", f"core {core} is given twice", "a core runs one reactor", "name each core once")
            found.append(core)
    return found


def _whole(pattern: re.Pattern[str], low: int, high: int, example: str, word: str) -> Callable[[object], int]:
    def run(value: object) -> int:
        found = pattern.fullmatch(value) if isinstance(value, str) else None
        if not found:
            why = f"a {word} is a whole number with its unit"
            fail("ws_quantity", f"{shown(value)} is not a {word}", why, f"write it like {example}")
        if not low <= int(found[1]) <= high:
            fail("ws_range", f"{shown(value)} is out of range", f"it must be {low} to {high}", f"write {example}")
        return int(found[1])

    return run


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str | int | float) else value


def _pool_drives(value: object) -> object:
    """``all`` is kept as the one-entry list [``all``]; no drive can have that name, so nothing is lost."""
    if isinstance(value, str) and value != "all":
        remedy = nearest(value, ["all"]) or f"put it in brackets: [{value[:_LONG]}]"
        fail(
            "ws_choice", f"{shown(value)} is not one of the words allowed", "drives is a list, or the word all", remedy
        )
    return ["all"] if value == "all" else value


def _quorum(value: int) -> int:
    if value not in (3, 5, 7):
        why = "a majority is clear only among an odd number, and more than 7 makes every heartbeat slower"
        fail("ws_quorum", f"{value} drives cannot be the quorum", why, "use 5 (or 3 with few drives)")
    return value


def bounded(low: int, high: int) -> FieldInfo:
    """A whole number from ``low`` to ``high``."""
    bounds: FieldInfo = Field(ge=low, le=high)
    return bounds


Name = Annotated[
    str, Field(json_schema_extra={"pattern": names.NAME_PATTERN}),
    _named("ws_name", names.check_name, "use lower-case letters, digits and hyphens, as in train-data-1"),
]  # fmt: skip
Nqn = Annotated[
    str, Field(json_schema_extra={"pattern": "^nqn\\."}),
    _named("ws_nqn", names.check_nqn, "on the host, 'cat /etc/nvme/hostnqn' shows its NQN"),
]  # fmt: skip
Address = Annotated[str, _named("ws_address", names.ip_text, "write the address itself, as in 10.8.0.1 or fd00::1")]
Rpc = Annotated[str, _named("ws_rpc", names.check_rpc, "write a path such as ./run/a.sock, or 127.0.0.1:5260")]
SocketPath = Annotated[str, _named("ws_rpc", names.check_socket_path, "write a path such as ./run/a.agent.sock")]
Interface = Annotated[str, _named("ws_name", names.check_interface, "see 'ip -brief link' for the names")]
User = Annotated[str, _named("ws_text", names.check_user, "write the name of an account of the BMC")]
Redfish = Annotated[str, _named("ws_address", names.redfish_url, "write it as in https://10.0.0.21")]
PathText = Annotated[str, _named("ws_text", names.check_path, "write the path of a file")]
Serial = Annotated[str, _named("ws_text", names.check_serial, "copy it from 'nvme list' or the label of the drive")]
Pcie = Annotated[
    str, _named("ws_pcie", names.pcie_address, 'write the full address in quotes: "0000:01:00.0" (see lspci -D)')
]
Service = Annotated[int, bounded(1, 65535)]
Size = Annotated[
    int, BeforeValidator(
        _quantity(parse_size, "size", "2TiB"),
        json_schema_input_type=Annotated[str, Field(pattern=_SIZE_PATTERN, examples=["2TiB", "7.68TB"])],
    ),
]  # fmt: skip
Rate = Annotated[
    int, BeforeValidator(
        _quantity(parse_rate, "rate", "500MiB/s"),
        json_schema_input_type=Annotated[str, Field(pattern=_RATE_PATTERN, examples=["500MiB/s", "100Gbit/s"])],
    ),
]  # fmt: skip
QosRate = Annotated[Rate, _step("ws_qos", limits.QOS_BYTES_STEP, show_rate)]
QosIops = Annotated[int, _step("ws_qos", limits.QOS_IOPS_STEP, lambda iops: f"{iops} IOPS")]
SliceSize = Annotated[Size, _step("ws_range", limits.SLICE_STEP_BYTES, show_size)]
FileSize = Annotated[Size, _step("ws_range", limits.FILE_BLOCK_BYTES, show_size)]
Chunk = Annotated[Size, AfterValidator(_chunk)]
Cores = Annotated[
    list[int], BeforeValidator(
        _cores, json_schema_input_type=list[int | Annotated[str, Field(pattern=r"^[0-9]+-[0-9]+$")]]
    ),
]  # fmt: skip
Share = Annotated[
    int, BeforeValidator(
        _whole(_SHARE, 1, 100, "50%", "share"), json_schema_input_type=Annotated[str, Field(pattern="^[0-9]{1,3}%$")]
    ),
]  # fmt: skip
Metres = Annotated[
    int, BeforeValidator(
        _whole(_METRES, 1, 10000, "5m", "length"), json_schema_input_type=Annotated[str, Field(pattern="^[0-9]+m$")]
    ),
]  # fmt: skip
PcieList = Annotated[list[Pcie], BeforeValidator(_one_or_more, json_schema_input_type=str | list[str])]
SerialList = Annotated[list[Serial], BeforeValidator(_one_or_more, json_schema_input_type=str | list[str])]
PoolDrives = Annotated[list[str], BeforeValidator(_pool_drives, json_schema_input_type=Literal["all"] | list[str])]
Quorum = Annotated[int, AfterValidator(_quorum)]
