"""The reservation of one namespace: what each command makes of it, and which commands it keeps out.

Why: reservations are the fence that keeps two writers apart, so every rule of them is here, as functions from values
to values.  This module must never wait, read a file or know a connection; ``reserved`` does that around it.

Theory of operation.  A ``State`` has registrants (hosts, each with a key), in the order in which they came.  At
most one *holder* is named.  Host identifiers, not controllers, register: all controllers of a host are one.

  RTYPE                                     others may read        others may write       who is a holder
  1 Write Exclusive                         everybody              nobody                 the holder
  2 Exclusive Access                        nobody                 nobody                 the holder
  3 Write Exclusive, Registrants Only       everybody              registrants            the holder
  4 Exclusive Access, Registrants Only      registrants            registrants            the holder
  5 Write Exclusive, All Registrants        everybody              registrants            every registrant
  6 Exclusive Access, All Registrants       registrants            registrants            every registrant

  command     the host must be       key must match     then
  Register    anything               no                 new: joins; known: only with the key that it has
   unregister a registrant           yes, or IEKEY      leaves; leaving holder: see below
   replace    a registrant, or IEKEY yes, or IEKEY      has the new key (joins with IEKEY); never key 0
  Acquire     a registrant           yes; IEKEY wrong   holds, if nobody does; again by the holder: nothing
   preempt    a registrant           yes; IEKEY wrong   registrants of PRKEY leave; if that is the holder, the
                                                        host holds with the new type instead; see ``_preempt``
  Release     a registrant           yes; IEKEY wrong   a holder gives up; others: nothing; the type must be right
   clear      a registrant           yes; IEKEY wrong   everybody leaves
  Report      anything               no                 -

  When a registrant leaves: the first that is left becomes the named holder (types 5 and 6); else the reservation
  ends if it was the holder's.

  event                                                           who is told                       of
  a holder unregisters, types 3 and 4                             other registrants                 released
  release, types 3 to 6                                           other registrants                 released
  preempt                                                         other hosts that had to leave     registration
  preempt of a holder (the host's own reservation too)            other hosts that are left         released
  clear                                                           other registrants                 preempted

Invariants: ``holder`` is one of the registrants; host identifiers are unique; no key is 0; a failed command changes
nothing, except that Register sets CPTPL before it looks at the rest.

SPDK is followed where it departs from the specification: the generation counts hosts that come and go and nothing
else; preempting all of types 5 and 6 (PRKEY 0) keeps the old type; a PRKEY that nobody has is a conflict for types
5 and 6 only; a report shows one holder even then; type 0 can be acquired, which names a holder that keeps nobody
out.  Sources: NVMe base 2.0c sections 7.2 to 7.5 and 8.19; SPDK v26.05 lib/nvmf/subsystem.c (nvmf_ns_reservation_*),
lib/nvmf/ctrlr.c (nvmf_ns_reservation_request_check).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from dataplane.nvme import reservations as wire
from dataplane.nvme.commands import Command, IoOp
from dataplane.nvme.layout import Raw
from dataplane.nvme.reservations import (
    AcquireAction,
    NotificationType,
    PersistThroughPowerLoss,
    RegisterAction,
    ReleaseAction,
    ReservationReport,
    ReservationType,
)
from dataplane.nvme.status import NvmeError, Status

MAX_REGISTRANTS = 16
CNTLID_UNKNOWN = 0xFFFF
_GENERATIONS = 1 << 32
_DWORDS = 1 << 30  # SPDK counts the bytes of a report in 32 bits
_ALL_REGISTRANTS = (
    ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS,
    ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
)
_ONE_HOST = (ReservationType.WRITE_EXCLUSIVE, ReservationType.EXCLUSIVE_ACCESS)
_REGISTRANTS_ONLY = (
    ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
    ReservationType.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY,
)
_READS_KEPT_OUT = (
    ReservationType.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY,
    ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
)
# SPDK looks at neither Verify nor Copy; here a copy is the write that it is.
_READS = (IoOp.READ, IoOp.COMPARE, IoOp.VERIFY)
_WRITES = (
    IoOp.FLUSH, IoOp.WRITE, IoOp.WRITE_UNCORRECTABLE, IoOp.WRITE_ZEROES, IoOp.DATASET_MANAGEMENT, IoOp.COPY,
)  # fmt: skip
_KEYS = struct.Struct("<QQ")
_KEY = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Who:
    """The host that sent a command, and the controller that it sent it to."""

    hostid: bytes
    cntlid: int


@dataclass(frozen=True, slots=True)
class Registration:
    """A registered host; ``cntlid`` is that of the controller it registered through."""

    hostid: bytes
    key: int
    cntlid: int = CNTLID_UNKNOWN


@dataclass(frozen=True, slots=True)
class State:
    """The reservation of a namespace; ``persist`` is whether it outlives a power loss (PTPL)."""

    registrations: tuple[Registration, ...] = ()
    rtype: ReservationType = ReservationType.NONE
    holder: bytes | None = None
    generation: int = 0
    persist: bool = False

    @property
    def of_all(self) -> bool:
        """Whether every registrant is a holder."""
        return self.rtype in _ALL_REGISTRANTS

    @property
    def key(self) -> int:
        """The key of the named holder; 0 when there is none."""
        found = None if self.holder is None else self.find(self.holder)
        return found.key if found else 0

    @property
    def hosts(self) -> frozenset[bytes]:
        """The registered hosts."""
        return frozenset(item.hostid for item in self.registrations)

    def find(self, hostid: bytes) -> Registration | None:
        """That host's registration."""
        return next((item for item in self.registrations if item.hostid == hostid), None)

    def holds(self, hostid: bytes) -> bool:
        """Whether that host is a holder."""
        return self.find(hostid) is not None if self.of_all else self.holder == hostid

    def others(self, hostid: bytes) -> frozenset[bytes]:
        """The registered hosts but that one."""
        return self.hosts - {hostid}


@dataclass(frozen=True, slots=True)
class Notice:
    """What the controllers of those hosts are to be told."""

    kind: NotificationType
    hosts: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command leads to.

    ``store``: the state is to be made durable first, where it can be.  ``aborted``: hosts whose commands must have
    ended before this one completes.
    """

    state: State
    status: Status = Status.SUCCESS
    store: bool = False
    notices: tuple[Notice, ...] = ()
    aborted: frozenset[bytes] = frozenset()


# Which commands are kept out


def permits(state: State, hostid: bytes, command: Command) -> bool:
    """Whether the reservation lets that host's command through."""
    rtype = state.rtype
    if not rtype or state.holds(hostid):
        return True
    registered = state.find(hostid) is not None
    match command.opcode:
        case IoOp.RESERVATION_ACQUIRE:
            return registered and command.cdw10 & 7 != AcquireAction.ACQUIRE
        case IoOp.RESERVATION_RELEASE:
            return registered
    if command.opcode in _READS:
        return rtype != ReservationType.EXCLUSIVE_ACCESS and (registered or rtype not in _READS_KEPT_OUT)
    if command.opcode in _WRITES:
        return registered and rtype not in _ONE_HOST
    return True


# Commands


def apply(state: State, who: Who, command: Command, data: Raw, *, can_persist: bool) -> Outcome:
    """What Register, Acquire or Release makes of ``state``."""
    match command.opcode:
        case IoOp.RESERVATION_REGISTER:
            return register(state, who, command, data, can_persist=can_persist)
        case IoOp.RESERVATION_ACQUIRE:
            return acquire(state, who, command, data)
        case IoOp.RESERVATION_RELEASE:
            return release(state, who, command, data)
    return Outcome(state, Status.INVALID_OPCODE)


def register(state: State, who: Who, command: Command, data: Raw, *, can_persist: bool) -> Outcome:
    """Reservation Register."""
    if len(data) < _KEYS.size:
        return Outcome(state, Status.INVALID_FIELD)
    current, new = _KEYS.unpack_from(data)
    before = state
    match command.cdw10 >> 30:
        case PersistThroughPowerLoss.OFF:
            state = replace(state, persist=False)
        case PersistThroughPowerLoss.ON:
            if not can_persist:
                return Outcome(state, Status.INVALID_FIELD)
            state = replace(state, persist=True)
    switched = Outcome(state, store=state != before)
    ignore = bool(command.cdw10 >> 3 & 1)
    match command.cdw10 & 7:
        case RegisterAction.REGISTER:
            return _join(switched, who, new)
        case RegisterAction.UNREGISTER:
            return _unregister(switched, who, current, ignore=ignore)
        case RegisterAction.REPLACE:
            return _replace_key(switched, who, current, new, ignore=ignore)
    return replace(switched, status=Status.INVALID_FIELD)


def _join(base: Outcome, who: Who, key: int) -> Outcome:
    known = base.state.find(who.hostid)
    if known is not None:
        return base if known.key == key else replace(base, status=Status.RESERVATION_CONFLICT)
    if not key:
        return replace(base, status=Status.INVALID_FIELD)
    if len(base.state.registrations) >= MAX_REGISTRANTS:
        return replace(base, status=Status.INTERNAL_ERROR)
    state = replace(
        base.state,
        registrations=(*base.state.registrations, Registration(who.hostid, key, who.cntlid)),
        generation=(base.state.generation + 1) % _GENERATIONS,
    )
    return Outcome(state, store=True)


def _unregister(base: Outcome, who: Who, key: int, *, ignore: bool) -> Outcome:
    before = base.state
    known = before.find(who.hostid)
    if known is None or (known.key != key and not ignore):
        return replace(base, status=Status.RESERVATION_CONFLICT)
    state = _leave(before, frozenset((who.hostid,)))
    ended = before.rtype in _REGISTRANTS_ONLY and not state.rtype
    told = _told(NotificationType.RESERVATION_RELEASED, state.hosts) if ended else ()
    return Outcome(state, store=True, notices=told)


def _replace_key(base: Outcome, who: Who, current: int, new: int, *, ignore: bool) -> Outcome:
    if not new:
        return replace(base, status=Status.INVALID_FIELD)
    known = base.state.find(who.hostid)
    if known is None and ignore:
        return _join(base, who, new)
    if known is None or (known.key != current and not ignore):
        return replace(base, status=Status.RESERVATION_CONFLICT)
    if known.key == new:
        return base
    items = (replace(item, key=new) if item is known else item for item in base.state.registrations)
    return Outcome(replace(base.state, registrations=tuple(items)), store=True)


def acquire(state: State, who: Who, command: Command, data: Raw) -> Outcome:
    """Reservation Acquire: acquire, preempt, preempt and abort."""
    action, rtype = command.cdw10 & 7, command.cdw10 >> 8 & 0xFF
    if len(data) < _KEYS.size or command.cdw10 >> 3 & 1 or rtype > max(ReservationType):
        return Outcome(state, Status.INVALID_FIELD)
    key, victim = _KEYS.unpack_from(data)
    known = state.find(who.hostid)
    if known is None or known.key != key:
        return Outcome(state, Status.RESERVATION_CONFLICT)
    wanted = ReservationType(rtype)
    match action:
        case AcquireAction.ACQUIRE:
            if state.holds(who.hostid) and state.rtype == wanted:
                return Outcome(state)
            if state.holder is not None:
                return Outcome(state, Status.RESERVATION_CONFLICT)
            return Outcome(replace(state, rtype=wanted, holder=who.hostid), store=True)
        case AcquireAction.PREEMPT | AcquireAction.PREEMPT_AND_ABORT:
            return _preempt(state, who.hostid, wanted, victim, abort=action == AcquireAction.PREEMPT_AND_ABORT)
    return Outcome(state, Status.INVALID_FIELD)


def _preempt(before: State, hostid: bytes, rtype: ReservationType, victim: int, *, abort: bool) -> Outcome:
    """Registrants with the key ``victim`` leave, the host itself among them if it is its key too."""
    matching = frozenset(item.hostid for item in before.registrations if item.key == victim)
    released = False
    if before.holder is None:
        state = _leave(before, matching)
    elif before.of_all:
        if victim and not matching:
            return Outcome(before, Status.RESERVATION_CONFLICT)
        state = _leave(before, matching if victim else before.others(hostid))
    elif victim == before.key:
        released = True
        if before.holder == hostid:
            state = replace(before, rtype=rtype)
        else:
            state = replace(_leave(before, matching - {hostid}), rtype=rtype, holder=hostid)
    elif victim:
        state = _leave(before, matching)
    else:
        return Outcome(before, Status.RESERVATION_CONFLICT)
    left, gone = state.others(hostid), before.others(hostid) - state.hosts
    notices = _told(NotificationType.REGISTRATION_PREEMPTED, gone)
    if released:
        notices += _told(NotificationType.RESERVATION_RELEASED, left)
    return Outcome(state, store=True, notices=notices, aborted=gone if abort else frozenset())


def release(state: State, who: Who, command: Command, data: Raw) -> Outcome:
    """Reservation Release: release, clear."""
    if len(data) < _KEY.size or command.cdw10 >> 3 & 1:
        return Outcome(state, Status.INVALID_FIELD)
    known = state.find(who.hostid)
    if known is None or known.key != _KEY.unpack_from(data)[0]:
        return Outcome(state, Status.RESERVATION_CONFLICT)
    others = state.others(who.hostid)
    match command.cdw10 & 7:
        case ReleaseAction.RELEASE:
            if state.holder is None:
                return Outcome(state)
            if state.rtype != command.cdw10 >> 8 & 0xFF:
                return Outcome(state, Status.INVALID_FIELD)
            if not state.holds(who.hostid):
                return Outcome(state)
            ended = replace(state, rtype=ReservationType.NONE, holder=None)
            told = () if state.rtype in _ONE_HOST else _told(NotificationType.RESERVATION_RELEASED, others)
            return Outcome(ended, store=True, notices=told)
        case ReleaseAction.CLEAR:
            told = _told(NotificationType.RESERVATION_PREEMPTED, others)
            return Outcome(_leave(state, state.hosts), store=True, notices=told)
    return Outcome(state, Status.INVALID_FIELD)


def _leave(state: State, gone: frozenset[bytes]) -> State:
    """Those hosts are registered no more."""
    left = tuple(item for item in state.registrations if item.hostid not in gone)
    generation = (state.generation + len(state.registrations) - len(left)) % _GENERATIONS
    rtype, holder = state.rtype, state.holder
    if holder is not None and state.of_all and gone:
        holder = left[0].hostid if left else None
    elif holder in gone:
        holder = None
    if holder is None:
        rtype = ReservationType.NONE
    return replace(state, registrations=left, rtype=rtype, holder=holder, generation=generation)


def _told(kind: NotificationType, hosts: frozenset[bytes]) -> tuple[Notice, ...]:
    return (Notice(kind, hosts),) if hosts else ()


# Report


def report(state: State, command: Command) -> bytes:
    """The data of a Reservation Report; raises NvmeError.  Fabrics know the extended form only."""
    if not command.length:
        raise NvmeError(Status.INVALID_FIELD)
    if not command.cdw11 & 1:
        raise NvmeError(Status.HOST_ID_INCONSISTENT)
    if (command.cdw10 + 1) % _DWORDS * 4 < wire.EXTENDED_HEAD_SIZE:
        raise NvmeError(Status.INTERNAL_ERROR)
    rows = tuple(
        wire.Registrant(item.cntlid, item.hostid == state.holder, item.hostid, item.key) for item in state.registrations
    )
    return ReservationReport(state.generation, state.rtype, state.persist, rows).pack(extended=True)
