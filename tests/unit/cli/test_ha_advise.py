"""Which subsystem to move: by what was measured, by size on an idle array, and not at all where it would not help."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_model import Model, ha_array

from cli.ha.advise import Advice, GroupLoad, advise, loads_of
from dataplane.rpc.values import BdevStat, IostatInfo
from ha.model import GroupId, NodeName

GIB = 1 << 30
MIB = 1 << 20


def load(subsystem: str, number: int, owner: NodeName, mib_per_s: int, *, gib: int = 1) -> GroupLoad:
    return GroupLoad(
        group=GroupId(subsystem, number),
        owner=owner,
        volumes=1,
        size_bytes=gib * GIB,
        iops=mib_per_s * 256,
        bytes_per_s=mib_per_s * MIB,
    )


def test_the_move_that_helps_most_is_named() -> None:
    found = advise([load("x", 1, "a", 300), load("y", 1, "a", 200), load("z", 2, "b", 100)], ["a", "b"])
    assert (found.subsystem, found.to, found.measured) == ("y", "b", True)
    assert found.loads == {"a": 600 * MIB - 100 * MIB, "b": 100 * MIB}
    assert found.after == {"a": 300 * MIB, "b": 300 * MIB}
    assert found.command == "ws7000 ha switchover --to b --subsystem y"
    assert found.sentence == (
        "move subsystem y to node b: node a then has 300MiB/s instead of 500MiB/s, and node b 300MiB/s"
    )


def test_home_where_that_is_best() -> None:
    away = [load("x", 1, "a", 100), load("x", 2, "a", 100), load("y", 1, "a", 100), load("y", 2, "a", 100)]
    found = advise(away, ["a", "b"])
    # Either subsystem to b would help as much; of moves that help alike, the way home is the better one.
    assert (found.home, found.after) == (True, {"a": 200 * MIB, "b": 200 * MIB})
    uneven = [load("x", 1, "a", 100), load("x", 2, "a", 400), load("y", 1, "a", 300)]
    found = advise(uneven, ["a", "b"])
    assert found.home
    assert found.command == "ws7000 ha failback"


def test_an_idle_array_is_judged_by_its_volumes() -> None:
    found = advise([load("x", 1, "a", 0, gib=6), load("y", 1, "a", 0, gib=4)], ["a", "b"])
    assert (found.measured, found.subsystem, found.to) == (False, "x", "b") or found.subsystem == "y"
    assert "of volumes" in found.sentence


def test_nothing_is_moved_for_little() -> None:
    found = advise([load("x", 1, "a", 105), load("y", 2, "b", 100), load("z", 1, "a", 3)], ["a", "b"])
    assert found.subsystem is None
    assert "a tenth" in found.sentence
    assert found.command == ""


def test_a_node_alone_can_give_nothing_away() -> None:
    found = advise([load("x", 1, "a", 100)], ["a"])
    assert found.subsystem is None
    assert "node b is no member" in found.sentence


def test_no_groups() -> None:
    assert advise([], ["a", "b"]).sentence == "there is nothing to move"


_ALL = [GroupId(subsystem, number) for subsystem in "wxyz" for number in (1, 2)]
_loads = st.dictionaries(
    st.sampled_from(_ALL), st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 500)), max_size=len(_ALL)
).map(lambda found: [load(group.subsystem, group.number, *rest) for group, rest in found.items()])


@settings(max_examples=60, deadline=None)
@given(_loads)
def test_advice_never_makes_the_busier_node_busier_and_ends(groups: list[GroupLoad]) -> None:
    by_group = {each.group: each for each in groups}
    for _ in range(2 * len(groups) + 2):
        found = advise(list(by_group.values()), ["a", "b"])
        if not found.command:
            assert found.after == found.loads
            return
        assert max(found.after.values()) < max(found.loads.values())
        by_group = _moved(by_group, found)
    raise AssertionError("it never ends")


def _moved(groups: dict[GroupId, GroupLoad], found: Advice) -> dict[GroupId, GroupLoad]:
    def owner(group: GroupId, each: GroupLoad) -> NodeName:
        if found.home:
            return group.home
        return found.to if group.subsystem == found.subsystem and found.to else each.owner

    return {group: replace(each, owner=owner(group, each)) for group, each in groups.items()}


def counted(name: str, ops: int, size_bytes: int) -> BdevStat:
    return BdevStat(
        name=name, bytes_read=size_bytes, read_ops=ops, bytes_written=size_bytes, write_ops=ops, bytes_unmapped=0,
        unmap_ops=0, read_latency_ticks=0, write_latency_ticks=0,
    )  # fmt: skip


def readings(*stats: BdevStat, ticks: int) -> IostatInfo:
    return IostatInfo(tick_rate_hz=1000, ticks=ticks, bdevs=stats)


@pytest.mark.parametrize(("again", "iops"), [(2100, 2000), (50, 0)])
def test_loads_are_what_the_owner_counted(again: int, iops: int) -> None:
    model = Model(ha_array())
    model.settle(ha_array())
    owners = {GroupId("default", 1): "a", GroupId("default", 2): "b"}
    before = {
        "a": readings(counted("vol-v1", 100, 100 * MIB), counted("vol-v3", 0, 0), ticks=5000),
        "b": readings(counted("vol-v1", 7, 7 * MIB), ticks=100),
    }
    after = {
        "a": readings(counted("vol-v1", again, 100 * MIB), counted("vol-v3", 9999, 0), ticks=7000),
        "b": readings(counted("vol-v1", 9999, 9999 * MIB), ticks=2100),
    }
    first, second = loads_of(model.state, owners, before, after)  # type: ignore[arg-type]
    assert (first.owner, first.volumes, first.iops) == ("a", 1, iops)
    assert (second.owner, second.volumes, second.iops) == ("b", 2, 0), "what the other node counts is not the owner's"
    assert second.size_bytes == sum(model.state.volumes[name].provisioned_bytes for name in ("v2", "v3"))
