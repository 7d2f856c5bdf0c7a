"""The array as its users meet it: real processes, a real NVMe/TCP host, real bytes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from small_lab import HOSTS, MIB, SmallLab, host_id, small_lab
from volume_io import STEP, block, contents, expected, fill

from controlplane.domain.desired import Array, Qos, Volume, shelf_nqn
from controlplane.domain.errors import PartlyApplied, Refused, Unreachable
from controlplane.domain.image import AnaState, NodeImage
from controlplane.planner.plan import Consent
from controlplane.planner.steps import SetQos
from controlplane.reconcile.apply import Progress
from controlplane.reconcile.reconciler import Reconciler
from dataplane.embedded.initiator.connection import TransportLost
from dataplane.embedded.initiator.host import Host, HostOptions
from dataplane.launch import EngineKind
from dataplane.nvme.dhchap import Secret
from dataplane.nvme.status import NvmeError
from dataplane.rpc.call import Call
from dataplane.rpc.methods import bdev, nvmf
from dataplane.rpc.session import Session
from dataplane.rpc.values import QosLimits


def test_apply_then_nothing_to_do_and_both_nodes_agree(lab: SmallLab) -> None:
    with lab.reconciler() as reconciler:
        _view, proposal = reconciler.propose()
        assert "export vol-wide" in "\n".join(step.sentence for step in proposal.plan.steps)
        assert reconciler.apply().changed
        assert not reconciler.apply().changed
        view = reconciler.look()
    a, b = view.seen["a"], view.seen["b"]
    assert isinstance(a, NodeImage)
    assert isinstance(b, NodeImage)
    assert a.subsystems[lab.nqn].namespaces == b.subsystems[lab.nqn].namespaces
    assert a.subsystems[lab.nqn].serial == b.subsystems[lab.nqn].serial
    assert a.raids == b.raids


def test_data_survives_a_switchover_and_a_restart_of_each_engine(lab: SmallLab) -> None:
    with lab.reconciler() as reconciler:
        state = reconciler.apply().state
        for name in ("wide", "safe", "both"):
            asyncio.run(fill(lab, state, name, name))
        reconciler.switchover("b")
        for name in ("wide", "safe", "both"):
            assert asyncio.run(contents(lab, state, name)) == expected(state, name, name)
        for nodes in ("a", "b", "ab"):
            for node in nodes:
                lab.restart(node)
            assert reconciler.apply().changed
        for name in ("wide", "safe", "both"):
            assert asyncio.run(contents(lab, state, name)) == expected(state, name, name)


def test_a_switchover_under_load_costs_no_error_and_no_write(lab: SmallLab) -> None:
    with lab.reconciler() as reconciler:
        state = reconciler.apply().state
        nsid = state.volumes["wide"].nsid

        async def scenario() -> tuple[int, int]:
            async with Host(HOSTS["h1"], host_id(HOSTS["h1"])) as host:
                connection = await host.connect(lab.nqn, lab.paths)
                namespace = connection.namespace(nsid)
                latest: dict[int, str] = {}
                stop = asyncio.Event()

                async def writer(lane: int) -> None:
                    turn = 0
                    while not stop.is_set():
                        offset = (lane + 8 * (turn % 12)) * STEP
                        latest[offset] = f"{lane}/{turn}"
                        await namespace.write(offset // namespace.block_size, block(latest[offset], offset))
                        turn += 1

                writers = [asyncio.create_task(writer(lane)) for lane in range(8)]
                for to in ("b", "a", "home"):
                    await asyncio.to_thread(reconciler.switchover, to)
                stop.set()
                await asyncio.gather(*writers)
                wrong = 0
                for offset, seed in latest.items():
                    got = await namespace.read(offset // namespace.block_size, STEP // namespace.block_size)
                    wrong += bytes(got) != block(seed, offset)
                return wrong, connection.counters.failed

        assert asyncio.run(scenario()) == (0, 0)


def test_a_new_volume_on_a_deleted_ones_slices_reads_zeroes(lab: SmallLab) -> None:
    with lab.reconciler() as reconciler:
        state = reconciler.apply().state
        asyncio.run(fill(lab, state, "wide", "secret"))
        old = set(state.volumes["wide"].slices)
    free = 4 * 15 - 1
    others = tuple(v for v in lab.array.volumes if v.name != "wide")
    big = Volume(name="next", size_bytes=free * MIB, pool="fast", home="b", hosts=("h1",))
    wanted = replace(lab.array, volumes=(*others, big))
    with lab.reconciler(wanted) as reconciler:
        with pytest.raises(Refused) as caught:
            reconciler.apply()
        assert caught.value.code == "PLAN-011"
        state = reconciler.apply(Consent(names=frozenset({"wide"}))).state
        assert old <= set(state.volumes["next"].slices)
        assert not any(map(any, asyncio.run(contents(lab, state, "next"))))


def test_hosts_see_only_what_is_theirs(lab: SmallLab) -> None:
    with lab.reconciler() as reconciler:
        state = reconciler.apply().state

    async def seen_by(name: str) -> set[int]:
        async with Host(HOSTS[name], host_id(HOSTS[name])) as host:
            return set((await host.connect(lab.nqn, lab.paths)).namespaces)

    everything = {v.nsid for v in state.volumes.values()}
    assert asyncio.run(seen_by("h1")) == everything
    assert asyncio.run(seen_by("h2")) == {state.volumes["both"].nsid}

    async def stranger() -> None:
        async with Host("nqn.2014-08.org.nvmexpress:uuid:33333333-3333-4333-8333-333333333333") as host:
            await host.connect(lab.nqn, lab.paths)

    with pytest.raises((TransportLost, NvmeError)):
        asyncio.run(stranger())


class CrashError(Exception):
    """The applier dies here."""


@pytest.mark.parametrize("cut", [0, 9, 20, 33, 46, 58, 70])
def test_crash_anywhere_the_next_apply_finishes_and_data_stays(lab: SmallLab, cut: int) -> None:
    one = replace(lab.array, volumes=lab.array.volumes[:1])
    with lab.reconciler(one) as reconciler:
        state = reconciler.apply().state
        asyncio.run(fill(lab, state, "wide", "kept"))
    wanted: Array = replace(
        lab.array, volumes=(*lab.array.volumes, Volume(name="more", size_bytes=2 * MIB, pool="fast"))
    )
    count = 0

    def die(progress: Progress) -> None:
        nonlocal count
        if progress.step is not None and count == cut:
            raise CrashError
        count += 1

    with lab.reconciler(wanted) as reconciler:
        try:
            reconciler.apply(listen=die)
        except CrashError:
            # The engine of one node dies with the applier, on every other cut.
            if cut % 2:
                lab.restart("b")
    with lab.reconciler(wanted) as reconciler:
        after = reconciler.apply().state
        assert not reconciler.apply().changed
    assert set(after.volumes) == {"wide", "safe", "both", "more"}
    assert asyncio.run(contents(lab, after, "wide")) == expected(after, "wide", "kept")


def test_an_engine_that_dies_in_the_middle_is_told_and_mended(lab: SmallLab) -> None:
    def kill(progress: Progress) -> None:
        if progress.step is not None and progress.step.sentence.startswith("build stripe set vol-wide"):
            lab.engines["b"].kill()

    with lab.reconciler() as reconciler:
        with pytest.raises(PartlyApplied) as caught:
            reconciler.apply(listen=kill)
        assert caught.value.code == "PLAN-021"
        with pytest.raises(Unreachable) as blind:
            reconciler.apply()
        assert blind.value.code == "PLAN-010"
        lab.restart("b")
        assert reconciler.apply().changed
        assert not reconciler.apply().changed


class Counting(Session):
    """A session that counts what it sends; as a reconciler makes one for each node."""

    requests: ClassVar[list[str]] = []
    pipelines: ClassVar[list[int]] = []

    def pipeline(
        self, calls: Sequence[Call[Any]], deadline_s: float | None = None, *, if_generation: int | None = None
    ) -> list[Any]:
        self.requests.extend(call.method for call in calls)
        self.pipelines.append(len(calls))
        return super().pipeline(calls, deadline_s, if_generation=if_generation)


def test_many_volumes_take_no_more_rounds_than_a_few(kind: EngineKind, tmp_path: Path) -> None:
    rounds: dict[int, tuple[int, int, int, int]] = {}
    for count in (4, 12):
        volumes = [
            Volume(name=f"v{i}", size_bytes=MIB, pool="fast" if i % 2 else "safe", home="ab"[i // 2 % 2], hosts=("h1",))  # type: ignore[arg-type]
            for i in range(count)
        ]
        folder = tmp_path / str(count)
        folder.mkdir()
        with (
            small_lab(kind, folder, *volumes) as lab,
            Reconciler.in_folder(lab.array, folder / "state", Counting) as reconciler,
        ):
            Counting.pipelines.clear()
            generation = reconciler.apply().state.generation
            first = len(Counting.pipelines)
            Counting.pipelines.clear()
            Counting.requests.clear()
            assert not reconciler.apply().changed
        # A look at a node: what is there, the details, the labels; nothing is asked about a single volume.
        rounds[count] = generation, first, len(Counting.pipelines), len(Counting.requests)
        assert Counting.requests.count("bdev_get_bdevs") == 2 * len(lab.array.drives) * 2
    assert rounds[4] == rounds[12]
    assert rounds[4][2] == 2 * 3


def test_limits_that_somebody_else_changed_are_set_right(lab: SmallLab) -> None:
    qos = Qos(rw_iops=5000, read_bytes_per_s=8 * MIB)
    volumes = tuple(replace(x, qos=qos) if x.name == "safe" else x for x in lab.array.volumes)
    array = replace(lab.array, volumes=volumes)
    with lab.reconciler(array) as reconciler, Session(str(lab.engines["b"].socket)) as session:
        reconciler.apply()
        for other in (
            bdev.set_qos_limit("vol-safe", rw_ios_per_s=9000),
            bdev.set_qos_limit("vol-safe", rw_ios_per_s=0, r_bytes_per_s=0),
            bdev.set_qos_limit("vol-wide", w_bytes_per_s=4 * MIB),
        ):
            session.run(other)
            seen = reconciler.look().seen
            assert isinstance(a := seen["a"], NodeImage)
            assert isinstance(b := seen["b"], NodeImage)
            assert a.qos == {"vol-safe": qos}
            assert b.qos != a.qos
            (plan,) = reconciler.apply().plans
            assert [(step.node, type(step)) for step in plan.steps] == [("b", SetQos)]
            assert not reconciler.apply().changed
        limits = [session.run(bdev.get_bdev(name)).qos for name in ("vol-safe", "vol-wide")]
    assert limits == [QosLimits(rw_ios_per_s=5000, r_bytes_per_s=8 * MIB), QosLimits()]


@pytest.mark.parametrize("offset", [0, 65600])
def test_a_drive_with_foreign_data_is_not_overwritten(lab: SmallLab, offset: int) -> None:
    path = lab.folder / "d0.img"
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"somebody's superblock")
    with lab.reconciler() as reconciler:
        with pytest.raises(Refused) as caught:
            reconciler.apply()
        assert caught.value.details["name"] == "d0"
        assert b"somebody's superblock" in path.read_bytes()
        assert reconciler.apply(Consent(names=frozenset({"d0"}))).changed


def test_a_host_with_a_secret(lab: SmallLab) -> None:
    secret, file = Secret(hashlib.sha256(b"test").digest()), lab.folder / "h1.secret"
    file.touch(mode=0o600)
    file.write_text(secret.text())
    hosts = (replace(lab.array.hosts[0], secret_file=str(file)), lab.array.hosts[1])
    with lab.reconciler(replace(lab.array, hosts=hosts)) as reconciler:
        state = reconciler.apply().state
        assert not reconciler.apply().changed
        knows = HostOptions(secret=secret)
        asyncio.run(fill(lab, state, "wide", "kept", knows))
        assert asyncio.run(contents(lab, state, "wide", knows)) == expected(state, "wide", "kept")
        wrong = Secret(hashlib.sha256(b"wrong").digest())
        for stranger in (
            HostOptions(),
            HostOptions(secret=wrong),
            HostOptions(secret=secret, controller_secret=wrong),
        ):
            with pytest.raises((TransportLost, NvmeError)):
                asyncio.run(contents(lab, state, "wide", stranger))
        _view, proposal = reconciler.propose()
        assert not proposal.plan
    assert "DHHC" not in "".join(path.read_text() for path in (lab.folder / "state").glob("*.json*"))
    with lab.reconciler() as reconciler:
        assert reconciler.apply().changed
        assert not reconciler.apply().changed
        assert asyncio.run(contents(lab, state, "wide")) == expected(state, "wide", "kept")


def test_a_node_whose_old_engine_still_runs_is_not_replaced(lab: SmallLab) -> None:
    with lab.reconciler() as reconciler:
        reconciler.apply()
    elsewhere = (lab.array.nodes[0], replace(lab.array.nodes[1], rpc=str(lab.folder / "b2.sock")))
    with lab.reconciler(replace(lab.array, nodes=elsewhere)) as reconciler:
        with pytest.raises(Unreachable) as caught:
            reconciler.apply()
        assert caught.value.code == "PLAN-010"
        assert "still runs" in caught.value.why


def test_a_drive_that_went_away_does_not_hold_up_a_switchover(kind: EngineKind, tmp_path: Path) -> None:
    volume = Volume(name="wide", size_bytes=2 * MIB, pool="fast", home="a", hosts=("h1",))
    with small_lab(kind, tmp_path, volume) as lab:
        with lab.reconciler() as reconciler:
            state = reconciler.apply().state
            spare = next(name for name in ("d4", "d5") if name not in state.volumes["wide"].drives)
            with Session(str(lab.engines["shelf"].socket)) as session:
                session.run(nvmf.delete_subsystem(shelf_nqn("lab", spare)))
            reconciler.switchover("b")
            view = reconciler.look()
        image = view.seen["b"]
        assert isinstance(image, NodeImage)
        states = next(iter(image.subsystems[lab.nqn].listeners.values()))
        assert states[1] is AnaState.OPTIMIZED
