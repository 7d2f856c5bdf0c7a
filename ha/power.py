"""The power of a node through its BMC, in a process of its own: ``python -m ha.power CONFIG ACTION``.

Why a process: a BMC may take minutes or answer strangely, and the libraries that speak to it (sushy for Redfish,
pyghmi for IPMI; the extra ``power``) are many times the size of the agent.  The agent never imports them and never
waits for them.

CONFIG is a JSON file, ``-`` for stdin: the node, its ``domain.desired.Bmc`` and ``within_s``.  ACTION is one of
``ACTIONS``.  One JSON object comes out: ``{"result": STATE}``, or ``{"error": ...}`` with a code.

This is hygiene, and safety never rests on it: a node was fenced at the drives before anybody asks for its power.
This module must never show the password, take one from the command line, or turn on a node that is off unless that
was asked for.  Sources: DMTF DSP0266 and DSP2046 (ComputerSystem.Reset), IPMI 2.0, 28.3 (Chassis Control).
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from controlplane.domain.desired import Bmc
from controlplane.domain.errors import Refused, Unreachable, UsageError, Ws7000Error

ACTIONS: Final = ("status", "off", "on", "cycle")
CONNECT_S: Final = 5
_LOOK_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Whose power, and how long it may take."""

    node: str
    bmc: Bmc
    within_s: float

    def to_json(self) -> str:
        """What ``of`` reads."""
        names = ("user", "password_file", "redfish", "ipmi", "verify", "ca_file")
        bmc = {name: getattr(self.bmc, name) for name in names}
        return json.dumps({"node": self.node, "within_s": self.within_s, "bmc": bmc})

    @classmethod
    def of(cls, text: str) -> Asked:
        """Raises ``UsageError`` HA-071."""
        try:
            body = json.loads(text)
            bmc = Bmc(**body["bmc"])
            if bool(bmc.redfish) is bool(bmc.ipmi):
                raise ValueError("a BMC is reached over Redfish or over IPMI")
            return cls(node=str(body["node"]), bmc=bmc, within_s=float(body["within_s"]))
        except (ValueError, TypeError, KeyError, RecursionError) as problem:
            raise UsageError(
                "HA-071",
                "there is no BMC to speak to",
                why=f"the configuration cannot be used: {problem}",
                remedy="use ws7000 ha power, which writes it from array.yaml",
            ) from problem


class Machine(Protocol):
    """What a BMC does for its machine."""

    def state(self) -> str:
        """``on``, ``off``, or the BMC's own word for anything else."""

    def switch(self, to: str) -> None:
        """Without asking the operating system: ``off`` or ``on``; returns before it is done."""

    def cycle(self) -> None:
        """Off and on again, by the BMC itself, so that nothing stays off when this process ends in between."""


def act(asked: Asked, action: str) -> str:
    """Carry it out; the state of the power afterwards.  Raises HA-070, HA-072 and HA-073."""
    password = read_password(Path(asked.bmc.password_file))
    try:
        with (_redfish if asked.bmc.redfish else _ipmi)(asked, password) as machine:
            return _carried_out(asked, machine, action)
    except Ws7000Error:
        raise
    except Exception as problem:  # whatever two libraries raise about a machine that answers strangely
        said = (str(problem) or type(problem).__name__).replace(password, "***")
        raise failed(asked.node, asked.bmc, f"{action}: {said}") from problem


def _carried_out(asked: Asked, machine: Machine, action: str) -> str:
    before = machine.state()
    if action == "status" or before == action:
        return before
    if action == "cycle":
        if before != "off":
            machine.cycle()
        return machine.state()
    until = time.monotonic() + asked.within_s
    machine.switch(action)
    while (now := machine.state()) != action:
        if time.monotonic() > until:
            why = f"the BMC took the order, and the power was still {now} after {asked.within_s:g} s"
            raise failed(asked.node, asked.bmc, why)
        time.sleep(_LOOK_S)
    return now


def read_password(path: Path) -> str:
    """The first line of the file; raises ``Refused`` HA-072."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, ValueError) as problem:
        raise _no_password(path, str(problem)) from problem
    if mode & 0o077:
        raise _no_password(path, f"others may read it (mode {mode & 0o777:o})")
    if not text or not text.isprintable():
        raise _no_password(path, "it does not hold one line with the password and nothing else")
    return text


def _no_password(path: Path, why: str) -> Refused:
    return Refused(
        "HA-072",
        f"the password of the BMC in {path} cannot be used",
        why=why,
        remedy="put the password of the BMC's account into it and nothing else, mode 600, on both nodes",
    )


def failed(node: str, bmc: Bmc, why: str) -> Unreachable:
    """HA-073."""
    return Unreachable(
        "HA-073",
        f"the BMC of node {node} did not do what it was asked",
        why=why,
        remedy="see whether the address, the account and its rights are right; look at the machine itself",
        where=bmc.where,
    )


def _not_installed(name: str) -> Refused:
    return Refused(
        "HA-070",
        "power control is not installed",
        why=f"the library {name} is missing; it comes with the extra 'power'",
        remedy="pip install 'ws7000[power]' on the node that is to do it",
    )


# ------------------------------------------------------------------ the two ways


class _Redfish:
    """The only system of a Redfish service."""

    def __init__(self, system: Any, resets: Any) -> None:  # noqa: ANN401 - sushy has no types
        self._system = system
        self._resets = resets

    def state(self) -> str:
        self._system.refresh(force=True)
        found = self._system.power_state
        return str(found.value).lower() if found is not None else "unknown"

    def switch(self, to: str) -> None:
        self._system.reset_system(self._resets.FORCE_OFF if to == "off" else self._resets.ON)

    def cycle(self) -> None:
        allowed = self._system.get_allowed_reset_system_values()
        wished = self._resets.POWER_CYCLE
        self._system.reset_system(wished if wished in allowed else self._resets.FORCE_RESTART)


@contextmanager
def _redfish(asked: Asked, password: str) -> Iterator[Machine]:
    try:
        import sushy
        from sushy.auth import SessionOrBasicAuth
    except ImportError as problem:
        raise _not_installed("sushy") from problem
    bmc = asked.bmc
    verify: bool | str = bmc.ca_file if bmc.verify and bmc.ca_file else bmc.verify
    with SessionOrBasicAuth(username=bmc.user, password=password) as account:
        root = sushy.Sushy(
            bmc.redfish, auth=account, verify=verify, server_side_retries=2, server_side_retries_delay=1,
            connect_timeout=CONNECT_S, read_timeout=asked.within_s,
        )  # fmt: skip
        yield _Redfish(root.get_system(), sushy.ResetType)


class _Ipmi:
    """A chassis, over the LAN."""

    def __init__(self, command: Any) -> None:  # noqa: ANN401 - pyghmi has no types
        self._command = command

    def state(self) -> str:
        return str(self._command.get_power()["powerstate"])

    def switch(self, to: str) -> None:
        self._command.set_power(to)

    def cycle(self) -> None:
        # A hard reset: every BMC has it, and to cycle the power is optional.
        self._command.set_power("reset")


@contextmanager
def _ipmi(asked: Asked, password: str) -> Iterator[Machine]:
    try:
        from pyghmi.ipmi.command import Command
    except ImportError as problem:
        raise _not_installed("pyghmi") from problem
    command = Command(bmc=asked.bmc.ipmi, userid=asked.bmc.user, password=password, keepalive=False)
    try:
        yield _Ipmi(command)
    finally:
        command.ipmi_session.logout()


def main(arguments: list[str]) -> int:
    """The process; its exit status."""
    if len(arguments) != 2 or arguments[1] not in ACTIONS:
        sys.stderr.write(f"usage: python -m ha.power CONFIG {'|'.join(ACTIONS)}\n")
        return 2
    logging.disable()  # what a library has to say may hold more than it should
    source, action = arguments
    status = 0
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        answer: dict[str, Any] = {"result": act(Asked.of(text), action)}
    except Ws7000Error as problem:
        answer, status = {"error": {**problem.to_json(), "kind": type(problem).__name__}}, int(problem.exit_code)
    sys.stdout.write(json.dumps(answer) + "\n")
    return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
