"""Heartbeats: is this datagram genuine, new and from our peer, and what follows from it.

Why: on what is heard rests when a node goes on serving and when its peer takes over, and the network may lose,
repeat, reorder and keep datagrams for as long as it likes, or carry those of somebody else.  This module is pure:
time is given in, nothing is sent here.

What always holds
- A datagram that is refused changes nothing but a counter.  What is heard never goes backwards.
- **Genuine**: each datagram ends with a keyed BLAKE2b tag over all of it (RFC 7693); without the array's secret none
  is accepted.
- **Fresh**: each agent draws a ``boot`` when it starts, and numbers its datagrams across all paths.  On each path
  only a number above the last one there is accepted; what is heard first on any path decides what is newest.
- **From this life of the peer**: a boot that was not heard before is believed only when its datagram says that it has
  heard a number of ours that we sent since we last came to believe a boot.  So whatever was recorded before this
  process started, or from a life of the peer that was replaced, is refused for ever, and that takes no list that grows.
  (``_retired`` is for two agents on one node at the same time: the one that was replaced must not come back.)
- An acknowledgement counts only for the boot that it names, so it is always of a datagram that this very process sent.

How long it may be.  Every datagram has at most ``MAX_DATAGRAM`` bytes.  What a node says is compressed, and mostly
fits into one; with hundreds of groups in it, it is cut into up to 255 pieces, each in a datagram of its own, all of
them sent with every heartbeat on every path. Each of them shows that the sender lives; what it says is taken as a
whole or not at all.  Pieces of the same ``edition`` are gathered across paths and heartbeats, so a lost one costs one
heartbeat.

Versions.  A datagram's layout is of the lower of both nodes' versions, and of ``OLDEST_VERSION`` until the peer has
announced its own.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Final

from ha.keys import array_prefix
from ha.model import FORMAT_VERSION, NodeName, Peer, Says, other
from ha.says import HostConnection, pack_connections, pack_says, unpack_connections, unpack_says

MAX_DATAGRAM: Final = 1400
"""What passes every Ethernet path unfragmented, tunnels included."""
OLDEST_VERSION: Final = 1
MAX_PATHS: Final = 8
MAX_PATH_NAME: Final = 32
SECRET_BYTES: Final = 32
_MAGIC: Final = b"WS7H"
_TAG_BYTES: Final = 16
_PERSON: Final = b"ws7000-heartbeat"
_HEADER: Final = struct.Struct("!4sBBHcBBQQQQ")  # magic version kind array node part parts boot sequence edition hears
_NUMBER: Final = struct.Struct("!Q")
_GREETING: Final = struct.Struct("!QQ")
_MAX_GREETINGS: Final = 4
_MAX_RETIRED: Final = 64
_MAX_PARTS: Final = 255
_SENT: Final = 16_384
"""How many sent datagrams are remembered: many leases, even when each heartbeat is many datagrams."""


class Kind(IntEnum):
    """What a datagram carries a piece of."""

    SAYS = 1
    CONNECTIONS = 2


class Refusal(StrEnum):
    """Why a datagram was not accepted.  ``UNPROVEN`` happens a few times after each start of an agent."""

    SIZE = "size"
    FORMAT = "format"
    FORGED = "forged"
    VERSION = "version"
    CONTENT = "content"
    ARRAY = "array"
    NODE = "node"
    PATH = "path"
    RETIRED = "retired"
    UNPROVEN = "unproven"
    REPLAYED = "replayed"


CODES: Final[Mapping[Refusal, str]] = {
    Refusal.SIZE: "HA-040",
    Refusal.FORMAT: "HA-040",
    Refusal.FORGED: "HA-040",
    Refusal.ARRAY: "HA-041",
    Refusal.NODE: "HA-041",
    Refusal.PATH: "HA-041",
    Refusal.RETIRED: "HA-042",
    Refusal.UNPROVEN: "HA-042",
    Refusal.REPLAYED: "HA-042",
    Refusal.VERSION: "HA-043",
    Refusal.CONTENT: "HA-043",
}
"""What status shows beside the counters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One datagram.  ``hears`` names the boot that the sender believes in (0: none yet), ``heard`` the last number that
    it has from that boot on each path; ``greets`` are boots that it has heard and does not believe yet, with their
    newest number."""

    node: NodeName
    boot: int
    sequence: int
    path: str
    piece: bytes
    edition: int = 1
    part: int = 0
    parts: int = 1
    kind: Kind = Kind.SAYS
    hears: int = 0
    heard: Mapping[str, int] = field(default_factory=dict)
    greets: tuple[tuple[int, int], ...] = ()
    version: int = OLDEST_VERSION

    def heard_of(self, boot: int) -> int:
        """The newest number of ``boot`` that the sender has heard; 0 for none."""
        believed = self.heard.values() if self.hears == boot else ()
        return max((*believed, *(number for each, number in self.greets if each == boot)), default=0)


class Codec:
    """Frames of one array to datagrams and back."""

    def __init__(self, array: str, secret: bytes) -> None:
        if len(secret) < SECRET_BYTES:
            raise ValueError(f"the secret has {SECRET_BYTES} bytes or more")
        self._prefix = array_prefix(array)
        # Any secret that is longer is brought to the length that BLAKE2b takes as a key.
        self._key = hashlib.blake2b(secret + array.encode(), digest_size=32, person=b"ws7000-key").digest()

    def encode(self, frame: Frame) -> bytes:
        """The datagram; raises ``ValueError`` when it would be too long."""
        head = _HEADER.pack(
            _MAGIC,
            frame.version,
            frame.kind,
            self._prefix,
            frame.node.encode(),
            frame.part,
            frame.parts,
            frame.boot,
            frame.sequence,
            frame.edition,
            frame.hears,
        )
        heard = b"".join(_name(path) + _NUMBER.pack(number) for path, number in sorted(frame.heard.items()))
        greets = b"".join(_GREETING.pack(*each) for each in frame.greets)
        body = b"".join(
            (head, _name(frame.path), bytes([len(frame.heard)]), heard, bytes([len(frame.greets)]), greets, frame.piece)
        )
        if len(body) + _TAG_BYTES > MAX_DATAGRAM:
            raise ValueError(f"{len(body)} bytes are too many for a datagram")
        return self.signed(body)

    def signed(self, body: bytes) -> bytes:
        """The datagram of these bytes, whatever they are."""
        return body + self._tag(body)

    def decode(self, datagram: bytes) -> Frame | Refusal:
        """The frame, or why it is none of this array's."""
        if not _HEADER.size + _TAG_BYTES < len(datagram) <= MAX_DATAGRAM:
            return Refusal.SIZE
        if datagram[: len(_MAGIC)] != _MAGIC:
            return Refusal.FORMAT
        body, tag = datagram[:-_TAG_BYTES], datagram[-_TAG_BYTES:]
        if not hmac.compare_digest(self._tag(body), tag):
            return Refusal.FORGED
        if not OLDEST_VERSION <= body[len(_MAGIC)] <= FORMAT_VERSION:
            return Refusal.VERSION
        if _HEADER.unpack_from(body)[3] != self._prefix:
            return Refusal.ARRAY
        try:
            return _frame(body)
        except (ValueError, struct.error, IndexError):
            return Refusal.CONTENT

    def _tag(self, body: bytes) -> bytes:
        return hashlib.blake2b(body, digest_size=_TAG_BYTES, key=self._key, person=_PERSON).digest()


def _name(path: str) -> bytes:
    raw = path.encode()
    if not 0 < len(raw) <= MAX_PATH_NAME:
        raise ValueError(f"the name of a path has 1 to {MAX_PATH_NAME} bytes: {path!r}")
    return bytes([len(raw)]) + raw


class _Reader:
    """Takes a datagram apart from the front; ``rest`` is what is left."""

    def __init__(self, raw: bytes) -> None:
        self.rest = raw

    def count(self, most: int) -> int:
        value = self.rest[0]
        if value > most:
            raise ValueError("too many")
        self.rest = self.rest[1:]
        return value

    def name(self) -> str:
        length = self.count(MAX_PATH_NAME)
        raw, self.rest = self.rest[:length], self.rest[length:]
        if not raw or len(raw) != length:
            raise ValueError("no name")
        return raw.decode()

    def numbers(self, form: struct.Struct) -> tuple[int, ...]:
        values = form.unpack_from(self.rest)
        self.rest = self.rest[form.size :]
        return values


def _frame(body: bytes) -> Frame:
    _magic, version, kind, _array, node, part, parts, boot, sequence, edition, hears = _HEADER.unpack_from(body)
    reader = _Reader(body[_HEADER.size :])
    path = reader.name()
    heard = {reader.name(): reader.numbers(_NUMBER)[0] for _ in range(reader.count(MAX_PATHS))}
    greets = tuple(reader.numbers(_GREETING) for _ in range(reader.count(_MAX_GREETINGS)))
    if node not in (b"a", b"b") or not boot or not sequence or not edition or part >= parts:
        raise ValueError("not what a node sends")
    return Frame(
        version=version,
        kind=Kind(kind),
        node="a" if node == b"a" else "b",
        boot=boot,
        sequence=sequence,
        path=path,
        edition=edition,
        part=part,
        parts=parts,
        hears=hears,
        heard=heard,
        greets=tuple((each[0], each[1]) for each in greets),
        piece=reader.rest,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gathered:
    """The pieces of the newest edition of one kind; ``done`` is the newest that was whole."""

    edition: int = 0
    pieces: tuple[bytes | None, ...] = ()
    done: int = 0

    def with_piece(self, frame: Frame) -> _Gathered:
        if frame.edition < self.edition or frame.edition <= self.done:
            return self
        pieces: list[bytes | None] = list(self.pieces) if frame.edition == self.edition else [None] * frame.parts
        if len(pieces) != frame.parts:
            raise ValueError("an edition has one number of parts")
        pieces[frame.part] = frame.piece
        done = self.done if None in pieces else frame.edition
        return _Gathered(edition=frame.edition, pieces=tuple(pieces), done=done)

    def whole(self) -> bytes:
        return b"".join(piece for piece in self.pieces if piece is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Life:
    """One life of the peer's agent, as far as it was heard."""

    boot: int
    newest: int = 0
    heard: Mapping[str, int] = field(default_factory=dict)
    gathered: Mapping[Kind, _Gathered] = field(default_factory=dict)
    says: Says | None = None
    connections: bytes = b""
    """Packed: they are read when they are needed, and not while heartbeats are waited for."""

    def after(self, frame: Frame) -> _Life:
        """With ``frame`` taken in; raises ``ValueError`` for one that cannot be read."""
        old = self.gathered.get(frame.kind, _Gathered())
        new = old.with_piece(frame)
        life = replace(
            self,
            newest=max(self.newest, frame.sequence),
            heard={**self.heard, frame.path: frame.sequence},
            gathered={**self.gathered, frame.kind: new},
        )
        if new.done == old.done:
            return life
        if frame.kind is Kind.CONNECTIONS:
            return replace(life, connections=new.whole())
        says = unpack_says(new.whole())
        if says.node != frame.node:
            raise ValueError("a node speaks for itself")
        return replace(life, says=says)


class _Spoken:
    """What is said of one kind: its pieces, and an edition that goes up when they change."""

    def __init__(self) -> None:
        self.edition = 0
        self.pieces: tuple[bytes, ...] = ()
        self._of: object = None

    def update(self, value: object, raw: Callable[[], bytes], room: int) -> None:
        """``raw`` gives the bytes of ``value``, in case it is another one than before."""
        if self.edition and self._of == value:
            return
        whole = raw()
        pieces = tuple(whole[at : at + room] for at in range(0, len(whole), room))
        if len(pieces) > _MAX_PARTS:
            raise ValueError(f"{len(pieces)} datagrams are too many for one heartbeat")
        self.edition += 1
        self.pieces, self._of = pieces, value


class Hearing:
    """What this agent has heard of its peer, and what it told it.  Not to be shared by threads."""

    def __init__(self, codec: Codec, node: NodeName, boot: int, paths: Sequence[str], silent_ms: int) -> None:
        """``boot`` is random, of 64 bits and not 0; a path that has been silent for ``silent_ms`` counts as down."""
        if not 0 < boot < 1 << 64 or not 0 < len(paths) <= MAX_PATHS or len(set(paths)) != len(paths):
            raise ValueError(f"a boot that is not 0, and 1 to {MAX_PATHS} paths with a name of their own")
        self.refusals: Counter[Refusal] = Counter()
        self._codec = codec
        self._node = node
        self._boot = boot
        self._paths = tuple(paths)
        self._silent_ms = silent_ms
        self._room = MAX_DATAGRAM - _TAG_BYTES - _HEADER.size - _overhead(self._paths)
        self._spoken = {kind: _Spoken() for kind in Kind}
        self._sequence = 0
        self._sent = [0] * _SENT
        self._life: _Life | None = None
        self._floor = 1
        self._retired: deque[int] = deque(maxlen=_MAX_RETIRED)
        self._greets: dict[int, int] = {}
        self._heard_at: int | None = None
        self._path_at: dict[str, int] = {}
        self._acked = 0
        self._acked_at: int | None = None
        self._hears_us_at: dict[str, int] = {}

    # -------------------------------------------------------------- what is sent

    def speak(self, says: Says, now: int) -> list[tuple[str, bytes]]:
        """The datagrams of one heartbeat, each with the path that it goes over.  ``now`` was read before."""
        self._spoken[Kind.SAYS].update(says, lambda: pack_says(says), self._room)
        return self._datagrams(Kind.SAYS, now)

    def tell(self, connections: Iterable[HostConnection], now: int) -> list[tuple[str, bytes]]:
        """The same for the hosts' connections; they are wanted less often than heartbeats."""
        return self.tell_packed(pack_connections(connections), now)

    def tell_packed(self, packed: bytes, now: int) -> list[tuple[str, bytes]]:
        """``tell`` of what ``pack_connections`` made, which takes long for thousands of them."""
        self._spoken[Kind.CONNECTIONS].update(packed, lambda: packed, self._room)
        return self._datagrams(Kind.CONNECTIONS, now)

    def _datagrams(self, kind: Kind, now: int) -> list[tuple[str, bytes]]:
        spoken = self._spoken[kind]
        life = self._life
        found = []
        for path in self._paths:
            for part, piece in enumerate(spoken.pieces):
                self._sequence += 1
                self._sent[self._sequence % _SENT] = now
                frame = Frame(
                    version=self.speaks,
                    kind=kind,
                    node=self._node,
                    boot=self._boot,
                    sequence=self._sequence,
                    path=path,
                    piece=piece,
                    edition=spoken.edition,
                    part=part,
                    parts=len(spoken.pieces),
                    hears=life.boot if life else 0,
                    heard=life.heard if life else {},
                    greets=tuple(self._greets.items()),
                )
                found.append((path, self._codec.encode(frame)))
        return found

    @property
    def speaks(self) -> int:
        """The version of the datagrams that this node sends."""
        if self._life is None or self._life.says is None:
            return OLDEST_VERSION
        return max(OLDEST_VERSION, min(FORMAT_VERSION, self._life.says.version))

    # -------------------------------------------------------------- what is heard

    def feed(self, datagram: bytes, path: str, now: int) -> Refusal | None:
        """A datagram has come over ``path``; None when it was accepted."""
        frame = self._codec.decode(datagram)
        refusal = frame if isinstance(frame, Refusal) else self._take(frame, path, now)
        if refusal is not None:
            self.refusals[refusal] += 1
        return refusal

    def _take(self, frame: Frame, path: str, now: int) -> Refusal | None:
        if frame.node != other(self._node) or frame.boot == self._boot:
            return Refusal.NODE
        if frame.path != path or path not in self._paths:
            return Refusal.PATH
        if frame.boot in self._retired:
            return Refusal.RETIRED
        of_ours = frame.heard_of(self._boot)
        if of_ours > self._sequence:
            return Refusal.CONTENT
        life = self._life
        if life is None or life.boot != frame.boot:
            if of_ours < self._floor:
                self._greet(frame)
                return Refusal.UNPROVEN
            life = _Life(boot=frame.boot)
        if frame.sequence <= life.heard.get(path, 0):
            return Refusal.REPLAYED
        try:
            after = life.after(frame)
        except ValueError:
            return Refusal.CONTENT
        self._believe(after, frame, now)
        return None

    def _greet(self, frame: Frame) -> None:
        """Remember an unproven boot so that it hears that we heard it; the newest few."""
        newest = max(frame.sequence, self._greets.pop(frame.boot, 0))
        self._greets[frame.boot] = newest
        while len(self._greets) > _MAX_GREETINGS:
            del self._greets[next(iter(self._greets))]

    def _believe(self, life: _Life, frame: Frame, now: int) -> None:
        if self._life is None or self._life.boot != life.boot:
            if self._life is not None:
                self._retired.append(self._life.boot)
            self._floor = self._sequence + 1
            self._greets.pop(life.boot, None)
            self._path_at = {}
            self._hears_us_at = {}
        newest = self._life is None or self._life.boot != life.boot or frame.sequence > self._life.newest
        self._life = life
        self._path_at[frame.path] = now
        if not newest:
            return
        self._heard_at = now
        if frame.hears != self._boot:
            return
        for path, number in frame.heard.items():
            sent_at = self._sent_at(number)
            if sent_at is None:
                continue
            self._hears_us_at[path] = sent_at
            if number > self._acked:
                self._acked, self._acked_at = number, sent_at

    def _sent_at(self, sequence: int) -> int | None:
        """When that number was sent; None for one that was not, or too long ago to be remembered."""
        if not max(0, self._sequence - _SENT) < sequence <= self._sequence:
            return None
        return self._sent[sequence % _SENT]

    def peer(self, now: int) -> Peer:
        """The peer as heard until ``now``; ``says`` may be None a little longer than ``heard_at``, until all pieces
        came."""
        return Peer(
            heard_at=self._heard_at,
            acked_at=self._acked_at,
            says=self._life.says if self._life else None,
            paths={path: self._path(path, now) for path in self._paths},
        )

    @property
    def connections(self) -> tuple[HostConnection, ...]:
        """The hosts' connections at the peer, as it last told them; none where they cannot be read."""
        packed = self._life.connections if self._life else b""
        try:
            return unpack_connections(packed) if packed else ()
        except ValueError:
            return ()

    def _path(self, path: str, now: int) -> tuple[bool, bool]:
        """(the peer hears us, we hear the peer)."""
        times = (self._hears_us_at.get(path), self._path_at.get(path))
        hears_us, heard = (at is not None and now - at <= self._silent_ms for at in times)
        return hears_us, heard


def _overhead(paths: tuple[str, ...]) -> int:
    """The most that names, acknowledgements and greetings take."""
    names = [len(_name(path)) for path in paths]
    return max(names) + 2 + sum(names) + _NUMBER.size * len(names) + _GREETING.size * _MAX_GREETINGS
