"""The page between the agent and the leash: until when may which data plane live.

Why a page of memory: the agent renews the lease at each of its ticks, and the leash must be able to read it while the
agent is stopped, killed or stuck.  This module must never decide whether a lease is to be renewed, and imports only
what the tiny leash may carry.

What always holds
- Each side writes its own part only: the agent the order, the leash what it is and does.
- Each part has two slots that are written in turn, with a counter and a CRC-32.  A writer that dies in the middle
  leaves one slot torn and the other whole, so what is read is then the order before: an older lease, that ends sooner.
- A page that was never written is an order that asks for nothing.  One that holds something else raises ``Unreadable``.
- It is read with ``pread``: a page that somebody cuts short is unreadable, and does not end the reader with SIGBUS.

The clock is CLOCK_BOOTTIME: monotonic, and the time counts during which the machine was suspended, for the peer's
went on. (A paused virtual machine stops every clock it has; against that only the fence helps.)  The agent must take
its ``now`` from here.

The page should lie on tmpfs (``place_of``): on a file system with a journal, a store into a mapped page may wait for
the disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import time
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

PAGE_BYTES: Final = 4096
_AGENT_AT: Final = 0
_LEASH_AT: Final = 2048
_SLOT_BYTES: Final = 512
_MAGIC: Final = b"WS7LEASE"
_ENVELOPE: Final = struct.Struct("<8sQ")  # magic, counter
_ORDER: Final = struct.Struct("<QQQQQqB")
"""Data plane (pid, started, key), agent (pid, started), lease, end."""
_LEASH: Final = struct.Struct("<QQQQBBBQQ")
"""Leash (pid, started), what it guards (pid, started), armed, memory locked, real time, what it killed (pid,
started)."""
_CRC: Final = struct.Struct("<I")
_UNARMED: Final = -1


class Unreadable(Exception):
    """The page holds something that neither side has written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that is not mistaken for a later one with its number: ``started`` is in ticks since the machine's
    start."""

    pid: int = 0
    started: int = 0

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The process that has the number now; None when there is none, or it has ended and only waits for its
        parent."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else cls(pid=pid, started=int(fields[19]))

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return self.pid > 0 and Process.of(self.pid) == self


NOBODY: Final = Process()


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the agent wants: ``data_plane`` dies when the clock passes ``lease_until_ns``, never while that is None.
    ``key`` is its reservation key, for whoever looks; ``end`` tells the leash to go."""

    data_plane: Process = NOBODY
    key: int = 0
    agent: Process = NOBODY
    lease_until_ns: int | None = None
    end: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LeashState:
    """What the leash is and does: ``guards`` is the process it holds a pidfd of, ``armed`` whether the order that it
    read last had a lease, ``killed`` the last process that it killed."""

    leash: Process = NOBODY
    guards: Process = NOBODY
    armed: bool = False
    memory_locked: bool = False
    real_time: bool = False
    killed: Process = NOBODY


def now_ns() -> int:
    """The clock of leases."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def now_ms() -> int:
    """The same clock in whole milliseconds, as ``ha.decide`` takes it."""
    return now_ns() // 1_000_000


def place_of(folder: Path) -> Path:
    """Where the page of the agent of that folder lies: there, or in /run where only that is in memory."""
    inside = folder / "lease.page"
    if _in_memory(folder) or not (_in_memory(Path("/run")) and os.access("/run", os.W_OK)):
        return inside
    return Path("/run") / f"ws7000-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}.lease"


def _in_memory(folder: Path) -> bool:
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    whole = folder.resolve()
    best, kind = -1, ""
    for line in mounts:
        left, _, right = line.partition(" - ")
        point = Path(left.split()[4])
        if whole.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), right.split()[0]
    return kind in ("tmpfs", "ramfs")


class _Page:
    """The mapped file; what both sides have in common."""

    def __init__(self, fd: int, own_at: int, own_size: int) -> None:
        self._fd = fd
        self._map = mmap.mmap(fd, PAGE_BYTES)
        self._own_at = own_at
        try:
            own = self._read(own_at, own_size)
        except Unreadable:
            own = None
        self._counter = own[0] if own else 0

    def close(self) -> None:
        """Give the page back; what was written stays."""
        self._map.close()
        os.close(self._fd)

    def order(self) -> Order:
        """The agent's newest whole order; raises ``Unreadable``."""
        return _order(self._read(_AGENT_AT, _ORDER.size))

    def leash(self) -> LeashState:
        """What the leash says of itself; nobody when there has been none, or it cannot be read."""
        try:
            found = self._read(_LEASH_AT, _LEASH.size)
        except Unreadable:
            found = None
        if found is None:
            return LeashState()
        pid, started, guards, guards_started, armed, locked, real_time, killed, killed_started = _LEASH.unpack(found[1])
        return LeashState(
            leash=Process(pid=pid, started=started),
            guards=Process(pid=guards, started=guards_started),
            armed=bool(armed),
            memory_locked=bool(locked),
            real_time=bool(real_time),
            killed=Process(pid=killed, started=killed_started),
        )

    def _read(self, at: int, size: int) -> tuple[int, bytes] | None:
        """Counter and body of the newest whole slot of the part at ``at``; None while nobody has written it."""
        raw = os.pread(self._fd, PAGE_BYTES, 0)
        if len(raw) != PAGE_BYTES:
            raise Unreadable(f"{len(raw)} bytes instead of {PAGE_BYTES}")
        slots = [raw[start : start + _SLOT_BYTES] for start in (at, at + _SLOT_BYTES)]
        whole = [each for each in (_opened(slot, size) for slot in slots) if each]
        if whole:
            return max(whole)
        if any(any(slot) for slot in slots):
            raise Unreadable("no slot is whole")
        return None

    def _write(self, body: bytes) -> None:
        self._counter += 1
        sealed = _ENVELOPE.pack(_MAGIC, self._counter) + body
        start = self._own_at + _SLOT_BYTES * (self._counter % 2)
        slot = sealed + _CRC.pack(zlib.crc32(sealed))
        self._map[start : start + len(slot)] = slot


def _opened(slot: bytes, size: int) -> tuple[int, bytes] | None:
    end = _ENVELOPE.size + size
    magic, counter = _ENVELOPE.unpack_from(slot)
    if magic != _MAGIC or _CRC.unpack_from(slot, end)[0] != zlib.crc32(slot[:end]):
        return None
    return counter, slot[_ENVELOPE.size : end]


class AgentPage(_Page):
    """The agent's end.  One agent at a time: the file is locked for as long as it is open."""

    def __init__(self, path: Path) -> None:
        """Raises ``BlockingIOError`` while another agent has it."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(fd).st_uid != os.geteuid():
                raise PermissionError(f"{path} belongs to somebody else")
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_size != PAGE_BYTES:
                os.ftruncate(fd, PAGE_BYTES)
            super().__init__(fd, _AGENT_AT, _ORDER.size)
        except BaseException:
            os.close(fd)
            raise
        self.path = path
        self.me = Process.of(os.getpid()) or NOBODY
        self.before = self._take_up()

    def _take_up(self) -> Order:
        """The order that was there, signed on by this agent and else unchanged, so that a lease goes on running.  One
        that cannot be read stays so until the first ``write``: it must not be taken for one that asks for nothing."""
        try:
            before = self.order()
        except Unreadable:
            return Order()
        self._put(replace(before, agent=self.me, end=False))
        return before

    def write(
        self, data_plane: Process = NOBODY, *, key: int = 0, lease_until_ms: int | None = None, end: bool = False
    ) -> None:
        """Renew, arm or disarm; the agent that writes is this process."""
        until = None if lease_until_ms is None else lease_until_ms * 1_000_000
        self._put(Order(data_plane=data_plane, key=key, agent=self.me, lease_until_ns=until, end=end))

    def _put(self, order: Order) -> None:
        until = _UNARMED if order.lease_until_ns is None else order.lease_until_ns
        data_plane, agent = order.data_plane, order.agent
        self._write(
            _ORDER.pack(data_plane.pid, data_plane.started, order.key, agent.pid, agent.started, until, order.end)
        )


class LeashPage(_Page):
    """The leash's end."""

    def __init__(self, path: Path) -> None:
        super().__init__(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW), _LEASH_AT, _LEASH.size)

    def say(self, state: LeashState) -> None:
        """Tell the agent."""
        self._write(
            _LEASH.pack(
                state.leash.pid,
                state.leash.started,
                state.guards.pid,
                state.guards.started,
                state.armed,
                state.memory_locked,
                state.real_time,
                state.killed.pid,
                state.killed.started,
            ),
        )


def _order(found: tuple[int, bytes] | None) -> Order:
    if found is None:
        return Order()
    pid, started, key, agent, agent_started, until, end = _ORDER.unpack(found[1])
    return Order(
        data_plane=Process(pid=pid, started=started),
        key=key,
        agent=Process(pid=agent, started=agent_started),
        lease_until_ns=None if until == _UNARMED else until,
        end=bool(end),
    )
