"""Datagrams and drives that are not ours, against real agents: refused, counted under their code, and without effect.

The agents get a second path whose other ends are sockets of the test: what arrives there are real heartbeats, to be
kept, changed and played again, and what is sent from there comes from the peer's address, as the kernel demands.

Elsewhere: each reason to refuse a heartbeat (unit/ha/test_heartbeat), policies that cannot be safe (HA-001,
unit/ha/test_policy), journals of other arrays and branches that lost (unit/ha/test_journal_quorum, HA-012, HA-014),
requests (unit/ha/test_control, HA-032)."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from ha_lab import QUORUM, ROOT, VOLUMES, HaLab, Statuses, ha_lab
from small_lab import small_lab

from controlplane.domain.errors import Ws7000Error
from controlplane.store import codec
from controlplane.store.service_map import service_map
from dataplane.launch import EngineKind, free_udp_ports
from ha.config import AgentConfig, HeartbeatPath
from ha.heartbeat import MAX_DATAGRAM, Codec, Frame
from ha.journal import snapshot
from ha.model import FORMAT_VERSION, NODES, NodeName, Phase, Says, other
from ha.says import pack_says

PATH: Final = "tapped"
SAME: Final = ("phase", "leader", "epoch", "sequence", "owners", "members", "evictions", "refused", "paused")


class Tap:
    """The second path of a node: what it sends is kept here, what is sent here reaches it."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        (self.service,) = free_udp_ports(1)
        self.socket.connect(("127.0.0.1", self.service))

    def path(self) -> HeartbeatPath:
        return HeartbeatPath(
            name=PATH, address="127.0.0.1", service=self.service, peer_address="127.0.0.1",
            peer_service=self.socket.getsockname()[1],
        )  # fmt: skip

    def next(self) -> bytes:
        """A heartbeat that the node has sent just now."""
        while True:
            try:
                self.socket.recv(MAX_DATAGRAM, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except ConnectionRefusedError:
                continue
        return self.socket.recv(MAX_DATAGRAM)

    def send(self, datagram: bytes) -> None:
        self.socket.send(datagram)


class Tapped:
    """The lab, and the taps of both nodes."""

    def __init__(self, lab: HaLab, taps: dict[NodeName, Tap]) -> None:
        self.lab, self.taps = lab, taps

    def secret(self) -> bytes:
        return bytes.fromhex((self.lab.lab.folder / "secret").read_text(encoding="ascii"))

    def refused(self, node: NodeName) -> dict[str, Any]:
        found: dict[str, Any] = self.lab.control(node).status()["peer"]["refused"]
        return found

    def same(self) -> dict[str, Any]:
        """What no datagram may change."""
        found = self.lab.settled()
        return {node: {key: found[node][key] for key in SAME} for node in NODES}

    def counted(self, node: NodeName, reason: str, code: str, datagrams: list[bytes]) -> None:
        """Each is refused for that reason, and nothing else changes."""
        before, count = self.same(), self.refused(node).get(reason, {"count": 0})["count"]
        for datagram in datagrams:
            self.taps[node].send(datagram)
        found = self.lab.wait_for(
            lambda at: at[node]["peer"]["refused"].get(reason, {"count": 0})["count"] >= count + len(datagrams)
        )
        assert found[node]["peer"]["refused"][reason]["code"] == code
        assert self.same() == before


@pytest.fixture
def tapped(kind: EngineKind, tmp_path: Path) -> Iterator[Tapped]:
    taps: dict[NodeName, Tap] = {node: Tap() for node in NODES}

    def configured(config: AgentConfig) -> AgentConfig:
        return replace(config, paths=(*config.paths, taps[config.node].path()))

    with ha_lab(kind, tmp_path, configured=configured) as lab:
        yield Tapped(lab, taps)
    for tap in taps.values():
        tap.socket.close()


def lies(node: NodeName, boot: int = 77, sequence: int = 1 << 40) -> Frame:
    """A heartbeat that would cost ``node`` its membership, were it believed: its peer leads alone, far ahead."""
    peer = other(node)
    says = Says(node=peer, phase=Phase.MEMBER, key=7, at=(99, 99), leader=peer, members={peer: 7})
    return Frame(node=peer, boot=boot, sequence=sequence, path=PATH, piece=pack_says(says), edition=1 << 40)


def test_datagrams_that_nobody_signed_change_nothing(tapped: Tapped) -> None:
    heartbeat = tapped.taps["b"].next()
    tapped.counted("a", "size", "HA-040", [b"", b"WS7H", heartbeat[:20], heartbeat + bytes(MAX_DATAGRAM)])
    tapped.counted("a", "format", "HA-040", [bytes(200), b"GET / HTTP/1.1\r\n" * 8])
    broken = [heartbeat[:at] + bytes([heartbeat[at] ^ 1]) + heartbeat[at + 1 :] for at in range(4, len(heartbeat), 7)]
    tapped.counted("a", "forged", "HA-040", broken)


def test_heartbeats_of_another_secret_or_array_change_nothing(tapped: Tapped) -> None:
    foreign = [Codec(tapped.lab.lab.array.name, bytes(32)), Codec("another", tapped.secret())]
    for node in NODES:
        tapped.counted(node, "forged", "HA-040", [each.encode(lies(node)) for each in foreign])


def test_genuine_heartbeats_that_are_not_the_peers_change_nothing(tapped: Tapped) -> None:
    """Our own ones, reflected; those of another path; and one of a version to come."""
    codec = Codec(tapped.lab.lab.array.name, tapped.secret())
    tapped.counted("a", "node", "HA-041", [tapped.taps["a"].next() for _ in range(3)])
    tapped.counted("a", "path", "HA-041", [codec.encode(replace(lies("a"), path="p0"))])
    tapped.counted("a", "version", "HA-043", [codec.encode(replace(lies("a"), version=FORMAT_VERSION + 1))])


def test_a_life_that_does_not_hear_us_is_not_believed(tapped: Tapped) -> None:
    """Signed with the right secret: what an agent of node b would say that was cloned, or recorded elsewhere."""
    codec = Codec(tapped.lab.lab.array.name, tapped.secret())
    tapped.counted("a", "unproven", "HA-042", [codec.encode(lies("a", boot=boot)) for boot in (77, 78, 79)])


def test_recorded_heartbeats_change_nothing(tapped: Tapped) -> None:
    kept = [tapped.taps["b"].next() for _ in range(3)]
    for datagram in kept:  # for once they are what they seem: the path is relayed
        tapped.taps["a"].send(datagram)
    tapped.lab.wait_for(lambda at: at["a"]["peer"]["paths"][PATH]["heard"])
    tapped.counted("a", "replayed", "HA-042", kept * 5)
    tapped.lab.control("a").pause()
    tapped.lab.wait_for(lambda at: at["a"]["paused"] and at["b"]["paused"])
    tapped.lab.kill_agent("b")
    tapped.lab.start_agent("b")
    before = tapped.same()

    def played(at: Statuses) -> bool:
        """Again and again: node a may have yet to hear of the new life that retires them."""
        for datagram in kept:
            tapped.taps["a"].send(datagram)
        return "retired" in at["a"]["peer"]["refused"]

    tapped.lab.wait_for(played)
    tapped.counted("a", "retired", "HA-042", kept * 5)
    assert tapped.same() == before


# ------------------------------------------------------------------ drives of another array


def test_an_agent_of_another_array_neither_registers_nor_fences(kind: EngineKind, tmp_path: Path) -> None:
    """Node b's agent is configured for another array, and told a map of it that names the drives of this one.  It hears
    nobody, as its secret is another one."""

    def configured(config: AgentConfig) -> AgentConfig:
        return replace(config, array="another") if config.node == "b" else config

    with small_lab(kind, tmp_path, *VOLUMES) as made:
        lab = HaLab(made, "slow", configured=configured)
        try:
            lab.configure()
            for node in NODES:
                lab.start_agent(node)
            state, _ = lab.form_on("a")
            lab.wait_for(lambda at: at["a"]["phase"] == "member")
            strange = replace(state, uuid="99999999-2222-4333-8444-555555555555")
            quorum = tuple(sorted(state.drives)[:QUORUM])
            packed = snapshot.pack(
                snapshot.Snapshot(state=codec.encode(strange).decode(), map=service_map(strange, quorum))
            )
            lab.control("b").learn(packed)
            found = lab.wait_for(lambda at: "registered by another array" in at["b"]["sentence"])
            assert "HA-002" in found["b"]["sentence"]
            with pytest.raises(Ws7000Error) as caught:
                lab.control("b").take_over(peer_is_off=True)
            assert caught.value.code == "HA-006"
            with pytest.raises(Ws7000Error) as caught:
                lab.control("b").save(strange.generation, 0, packed, form=True)
            assert caught.value.code == "HA-002"
            after = lab.status()
            assert after["b"]["phase"] == "outside"
            assert after["a"]["phase"] == "member"
            assert after["a"]["drives"]["conflicts"] == []
            assert (after["a"]["epoch"], after["a"]["evictions"]) == (1, {})
            assert [entry for entry in lab.control("b").history() if entry["event"] == "takeover"] == []
        except BaseException as problem:
            problem.add_note(lab.show())
            raise
        finally:
            lab.close()


@pytest.mark.parametrize(
    ("change", "code"),
    [({"policy": "hasty"}, "HA-038"), ({"power": "always"}, "HA-038"), ({"secret_file": "/nowhere"}, "HA-044")],
)
def test_an_agent_is_not_started_with_a_configuration_that_is_none(
    tmp_path: Path, change: dict[str, str], code: str
) -> None:
    config = AgentConfig(
        array="lab", node="a", engine=str(tmp_path / "a.sock"), control=str(tmp_path / "a.agent"),
        folder=str(tmp_path / "kept"), secret_file=str(tmp_path / "secret"), policy="fast", paths=(),
    )  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(config.to_json()), **change}), encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "ha.agent", str(path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.startswith(f"{code}: ")
