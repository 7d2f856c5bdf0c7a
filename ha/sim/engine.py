"""A simulated data plane: one incarnation, its sets, its groups, its I/O, as SPDK behaves with the product's settings.

Why so close to SPDK: a mirrored write is acknowledged when no leg is left that it waits for and any took it; a
refused or lost leg stalls (bdev_retry_count -1) until the agent removes it; a command in a stopped process waits and is
carried out when it goes on; what was sent when it was killed may reach the drive much later, or never.  A host that
reconnects to the same incarnation waits until that has ended its old commands (NVM Express Base 2.1, 3.3.2.5).

Invariant: after ``dead`` nothing is processed and nothing answered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ha.model import Answer, GroupId
from ha.policy import KILL_TO_SILENCE_MS
from ha.sim.drives import DATA, Command, Op
from ha.sim.loop import MS

if TYPE_CHECKING:
    from ha.sim.node import Node

BLOCKS: Final = 4
"""Of each volume; an even number, for the hosts share them out."""
OK: Final = "ok"
INACCESSIBLE: Final = "inaccessible"
LOST: Final = "lost"
"""The drive below was given up: an error that the host has to see."""
WHOLE: Final = "whole"
REBUILDING: Final = "rebuilding"


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume with its one drive, or with the legs of its mirror (bdev, drive)."""

    name: str
    group: GroupId
    nqn: str
    nsid: int
    drive: str = ""
    mirror: str = ""
    legs: tuple[tuple[str, str], ...] = ()

    @property
    def drives(self) -> tuple[str, ...]:
        """Where it lies."""
        return tuple(drive for _, drive in self.legs) or (self.drive,)


class Io:
    """One attempt of a host; ``reply`` is called at most once."""

    __slots__ = ("good", "host", "lba", "pending", "reply", "round", "tag", "volume", "write")

    def __init__(
        self, host: str, volume: Volume, lba: int, *, write: bool, tag: int, reply: Callable[[str, Any], None]
    ) -> None:
        self.host = host
        self.volume = volume
        self.lba = lba
        self.write = write
        self.tag = tag
        self.reply = reply
        self.pending: dict[str, None] = {}
        self.good = 0
        self.round = 0

    @property
    def cell(self) -> tuple[str, str, int]:
        """Where the block lies on each of its drives."""
        return (DATA, self.volume.name, self.lba)


class DataPlane:
    """One life of the process; a restart is another one with another key."""

    def __init__(self, node: Node, key: int, volumes: tuple[Volume, ...]) -> None:
        self.node = node
        self.world = node.world
        self.loop = node.world.loop
        self.rng = node.world.rng
        self.key = key
        self.alive = True
        self.dying = False
        self.hung = False
        self.raised: set[GroupId] = set()
        self.flight: dict[GroupId, int] = {}
        self.refused: set[tuple[str, int]] = set()
        self.detached: set[str] = set()
        self.legs: dict[str, dict[str, str]] = {
            volume.mirror: {drive: WHOLE for _, drive in volume.legs} for volume in volumes if volume.mirror
        }
        self.sources = {volume.mirror: volume for volume in volumes if volume.mirror}
        self.active: dict[Io, None] = {}
        self._locked: dict[tuple[str, int], list[Io]] = {}
        self._backlog: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    # ------------------------------------------------------------ the process

    def deliver(self, call: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401 - whatever it takes
        """Something reaches the process: it happens now, when the process goes on, or never."""
        if not self.alive:
            return
        if self.hung:
            self._backlog.append((call, arguments))
        else:
            call(*arguments)

    def later(self, delay: int, call: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401
        """A timer of the process."""
        self.loop.after(delay, self.deliver, call, *arguments)

    def stop(self) -> None:
        """SIGSTOP, or a loop that does not end."""
        self.hung = True

    def go_on(self) -> None:
        """It goes on with all that has come meanwhile."""
        if not self.hung:
            return
        self.hung = False
        self.world.checkers.look()
        backlog, self._backlog = self._backlog, []
        for call, arguments in backlog:
            self.deliver(call, *arguments)

    def kill(self) -> None:
        """SIGKILL: it may go on for as long as the policy reckons with; a stopped process does nothing more."""
        if self.dying or not self.alive:
            return
        self.dying = True
        self.loop.after(self.rng.randrange(KILL_TO_SILENCE_MS * MS), self._killed)

    def _killed(self) -> None:
        self.dead(told=True)

    def dead(self, *, told: bool) -> None:
        """The process is gone; its hosts are told unless the power went with it."""
        if not self.alive:
            return
        self.alive = False
        self._backlog.clear()
        self.node.engine_ended(told=told)

    # ------------------------------------------------------------ commands to drives

    def send(
        self,
        drive: str,
        op: Op,
        done: Callable[[Answer, Any], None],
        cell: tuple[Any, ...] = (),
        value: Any = None,  # noqa: ANN401 - what a block holds
        why: str = "",
    ) -> None:
        """One command; ``done`` is called in this process, if it lives and goes on, when the answer comes."""

        def completed(answer: Answer, found: Any) -> None:  # noqa: ANN401
            self.loop.after(self._transit_us(), self.deliver, done, answer, found)

        command = Command(op, self.key, completed, cell, value, why)
        command.sent_at = self.loop.now
        self.loop.after(self._transit_us(), self._arrives, self.world.altered(command), drive)

    def _transit_us(self) -> int:
        chance = self.rng.random()
        return self.rng.randrange(500, 15_000) if chance < 0.01 else self.rng.randrange(30, 150)

    def _arrives(self, command: Command, drive: str) -> None:
        if self.alive:
            self._reaches(command, drive)
        elif self.rng.random() < 0.5:
            self.loop.after(self.rng.randrange(1_500 * MS), self._reaches, command, drive)

    def _reaches(self, command: Command, drive: str) -> None:
        if self.node.ports[drive] and drive not in self.detached:
            self.world.drives[drive].arrive(command)
        else:
            command.done(Answer.FAILED, None)

    # ------------------------------------------------------------ I/O of hosts

    def submit(self, io: Io) -> None:
        """A command of a host."""
        volume = io.volume
        if volume.group not in self.raised or (volume.nqn, volume.nsid) in self.refused:
            io.reply(INACCESSIBLE, None)
            return
        self.flight[volume.group] = self.flight.get(volume.group, 0) + 1
        self.active[io] = None
        self._start(io)

    def _start(self, io: Io) -> None:
        volume = io.volume
        if io.write and volume.mirror:
            lock = self._locked.get((volume.mirror, io.lba))
            if lock is not None:
                lock.append(io)
                return
        io.round += 1
        io.pending = dict.fromkeys(self._targets(io))
        if not io.pending:
            self._finish(io, LOST, None)
            return
        for drive in list(io.pending):
            self._part(io, drive, io.round)

    def _targets(self, io: Io) -> list[str]:
        volume = io.volume
        if not volume.mirror:
            return [] if volume.drive in self.detached else [volume.drive]
        legs = self.legs[volume.mirror]
        if io.write:
            return list(legs)
        whole = [drive for drive, state in legs.items() if state == WHOLE]
        return [self.rng.choice(whole)] if whole else []

    def _part(self, io: Io, drive: str, turn: int) -> None:
        if io in self.active and io.round == turn and drive in io.pending:
            op = Op.WRITE if io.write else Op.READ
            self.send(drive, op, lambda answer, found: self._answered(io, drive, turn, answer, found), io.cell, io.tag)

    def _answered(self, io: Io, drive: str, turn: int, answer: Answer, found: Any) -> None:  # noqa: ANN401
        if io not in self.active or io.round != turn or drive not in io.pending:
            return
        if answer is Answer.OK:
            del io.pending[drive]
            io.good += 1
            if not io.pending:
                self._finish(io, OK, found)
            return
        if answer is Answer.CONFLICT:
            self.node.conflicted(self, drive)
        if io.write:
            self.later(self.rng.randrange(5 * MS, 30 * MS), self._part, io, drive, turn)
        else:
            self.later(self.rng.randrange(5 * MS, 30 * MS), self._again, io, turn)

    def _again(self, io: Io, turn: int) -> None:
        if io in self.active and io.round == turn:
            self._start(io)

    def _finish(self, io: Io, status: str, found: Any) -> None:  # noqa: ANN401
        del self.active[io]
        self.flight[io.volume.group] -= 1
        io.reply(status, found)

    def busy_with(self, host: str) -> bool:
        """Whether commands of an earlier connection of this host are still on their way."""
        return any(io.host == host for io in self.active)

    # ------------------------------------------------------------ sets

    def drop_leg(self, mirror: str, drive: str) -> None:
        """Take a leg out: what waits for it alone is acknowledged if any other leg took it."""
        rebuilding = self.legs[mirror].pop(drive, WHOLE) == REBUILDING
        for io in list(self.active):
            if io.volume.mirror == mirror and drive in io.pending:
                self._without(io, drive)
        if rebuilding:
            for lba in range(BLOCKS):
                self._unlock(mirror, lba)

    def detach(self, drive: str) -> None:
        """Give a drive up: its mirrors lose a leg, and what was bare on it its device, which takes its namespace
        along."""
        self.detached.add(drive)
        self.refused |= {(v.nqn, v.nsid) for v in self.world.volumes if not v.mirror and v.drive == drive}
        self.world.drives[drive].disconnect(self.key)
        for mirror, legs in self.legs.items():
            if drive in legs:
                self.drop_leg(mirror, drive)
        for io in list(self.active):
            if drive in io.pending:
                self._without(io, drive)

    def _without(self, io: Io, drive: str) -> None:
        del io.pending[drive]
        if not io.write:
            self._start(io)
        elif not io.pending:
            self._finish(io, OK if io.good else LOST, None)

    def rebuild(self, mirror: str, drive: str, done: Callable[[bool], None]) -> None:
        """Copy every block to the leg; writes go to it from now on, reads when it is done."""
        self.legs[mirror][drive] = REBUILDING
        self._copy(mirror, drive, 0, done)

    def _copy(self, mirror: str, drive: str, lba: int, done: Callable[[bool], None]) -> None:
        if self.legs[mirror].get(drive) != REBUILDING:
            done(False)  # noqa: FBT003 - an outcome
            return
        if lba == BLOCKS:
            self.legs[mirror][drive] = WHOLE
            done(True)  # noqa: FBT003 - an outcome
            return
        self._locked.setdefault((mirror, lba), [])
        if any(io.write and io.volume.mirror == mirror and io.lba == lba and io.pending for io in self.active):
            self.later(2 * MS, self._copy, mirror, drive, lba, done)
            return
        whole = [each for each, state in self.legs[mirror].items() if state == WHOLE]
        if not whole:
            self.drop_leg(mirror, drive)
            done(False)  # noqa: FBT003 - an outcome
            return
        self._copy_block(mirror, drive, lba, whole[0], done)

    def _copy_block(self, mirror: str, drive: str, lba: int, source: str, done: Callable[[bool], None]) -> None:
        cell = (DATA, self.sources[mirror].name, lba)

        def read(answer: Answer, found: Any) -> None:  # noqa: ANN401
            if answer is Answer.OK and self.legs[mirror].get(drive) == REBUILDING:
                self.send(drive, Op.WRITE, written, cell, found)
            else:
                self.later(20 * MS, self._copy, mirror, drive, lba, done)

        def written(answer: Answer, _found: Any) -> None:  # noqa: ANN401
            if answer is Answer.OK:
                self._unlock(mirror, lba)
                self._copy(mirror, drive, lba + 1, done)
            else:
                self.later(20 * MS, self._copy, mirror, drive, lba, done)

        self.send(source, Op.READ, read, cell)

    def _unlock(self, mirror: str, lba: int) -> None:
        for io in self._locked.pop((mirror, lba), []):
            if io in self.active:
                self._start(io)
