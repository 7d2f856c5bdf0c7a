"""Random arrays, cut anywhere: every prefix is safe, and the next plans finish what was begun."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from planner_model import MIB, Model, ha_array, small_array

from controlplane.domain.desired import Array, Qos, Volume
from controlplane.domain.state import State
from controlplane.planner import steps as s

NAMES = ("v1", "v2", "v3", "v4")


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    """The small array with some volumes of some kind."""
    base = small_array()
    volumes = tuple(
        Volume(
            name=name,
            # Name, pool and size go together, so that two arrays agree about a volume they share.
            size_bytes=(1 + NAMES.index(name)) * MIB,
            pool="safe" if name in ("v2", "v4") else "fast",
            hosts=tuple(sorted(draw(st.sets(st.sampled_from(["h1", "h2"]))))),
            qos=Qos(rw_iops=draw(st.sampled_from([None, 1000, 9000]))),
        )
        for name in sorted(draw(st.sets(st.sampled_from(NAMES), max_size=4)))
    )
    return replace(base, volumes=volumes)


def check_slices(state: State) -> None:
    """No slice twice, none reserved."""
    refs = [ref for volume in state.volumes.values() for ref in volume.slices]
    assert len(refs) == len(set(refs))
    assert all(ref.index >= 1 for ref in refs)


@settings(max_examples=60, deadline=None)
@given(first=arrays(), second=arrays(), cut=st.integers(0, 200), lost=st.sampled_from(["", "a", "b", "ab"]))
def test_cut_anywhere_the_next_plans_converge(first: Array, second: Array, cut: int, lost: str) -> None:
    model = Model(first)
    model.settle(first)
    # Run the way to the second array up to the cut, over as many rounds as it takes.
    done = 0
    while done < cut:
        proposal = model.propose(second)
        assert not proposal.problems
        if proposal.state != model.state:
            model.save(proposal.state)
        if not proposal.plan:
            break
        for step in proposal.plan.steps:
            if done == cut:
                break
            model.run(step)
            done += 1
    for name in lost:
        model.restart(name)
    model.settle(second)
    check_slices(model.state)
    assert not model.propose(second).plan
    assert set(model.state.volumes) == {v.name for v in second.volumes}
    fresh = Model(second)
    fresh.state = model.state
    fresh.labels = dict(model.labels)
    fresh.settle(second)
    assert fresh.nodes == model.nodes, "the result does not depend on the way there"


@settings(max_examples=40, deadline=None)
@given(way=st.lists(arrays(), min_size=2, max_size=4))
def test_identities_stay_for_life_and_end_with_it(way: list[Array]) -> None:
    model = Model(way[0])
    known: dict[str, tuple[str, int]] = {}
    gone: set[str] = set()
    for array in way:
        model.settle(array)
        now = {name: (v.uuid, v.nsid) for name, v in model.state.volumes.items()}
        for name in known.keys() & now.keys():
            assert known[name] == now[name]
        gone |= {known[name][0] for name in known.keys() - now.keys()}
        assert not gone & {identity for identity, _ in now.values()}, "a deleted volume's UUID came back"
        known = now


@settings(max_examples=30, deadline=None)
@given(
    way=st.lists(arrays(), min_size=2, max_size=3),
    owners=st.lists(st.tuples(st.sampled_from([1, 2]), st.sampled_from(["a", "b"])), max_size=6),
    cut=st.integers(0, 60),
)
def test_under_agents_no_plan_touches_ana(way: list[Array], owners: list[tuple[int, str]], cut: int) -> None:
    agents = ha_array()
    wishes = [replace(agents, volumes=array.volumes) for array in way]
    model = Model(wishes[0])
    model.settle(wishes[0])
    moves = iter(owners)
    for array in wishes[1:]:
        nqn = array.subsystem("default").nqn
        proposal = model.propose(array)
        if proposal.state != model.state:
            model.save(proposal.state)
        for step in proposal.plan.steps[:cut]:
            assert not isinstance(step, s.SetAna | s.Drain)
            model.run(step)
            # Groups move whenever they like, in the middle of a plan too.
            if (move := next(moves, None)) is not None:
                model.serve(nqn, *move)
        served = {group: model.owners(nqn, group) for group in (1, 2)}
        model.settle(array)
        assert {group: model.owners(nqn, group) for group in (1, 2)} == served
        assert not model.propose(array).plan
