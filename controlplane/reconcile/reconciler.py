"""Observe, plan, apply, observe again: one object for one array.

A drive's size and label are known only once it is attached, so an apply runs in rounds until nothing differs;
each round is a whole plan.  The last round is always an observation that finds nothing to do.
"""

from __future__ import annotations

import uuid as uuidlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from controlplane.domain.desired import Array, FileDrive
from controlplane.domain.errors import PartlyApplied, Refused, Unreachable, Ws7000Error
from controlplane.domain.image import NodeImage, Seen, Unknown
from controlplane.domain.state import State
from controlplane.planner import labels
from controlplane.planner.allocate import DriveFacts
from controlplane.planner.plan import Consent, Proposal, make_plan, refuse_loss
from controlplane.planner.steps import Phase, Plan
from controlplane.reconcile import calls
from controlplane.reconcile.agent_view import AgentView
from controlplane.reconcile.agents import Agents, Say, left_out
from controlplane.reconcile.apply import Applier, Listener, Progress, quiet
from controlplane.reconcile.engines import engine_address
from controlplane.reconcile.journal import Journal
from controlplane.reconcile.observe import DEADLINE_S, observe
from controlplane.reconcile.switchover import moved_owners
from controlplane.reconcile.together import together
from controlplane.store.base import Store
from controlplane.store.file import FileStore
from controlplane.store.journal import FORMED, HaStore
from dataplane.rpc.session import Session

MAX_ROUNDS = 5
_TO_REACH_DRIVES = (Phase.DRIVE_OPTIONS, Phase.DRIVE_ATTACH)
OLD_ENGINE_S = 2.0
TRIAL_BLOCK_BYTES = 512
"""The block size of file drives before they have been seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One look at the array: the state it was judged by, each node, each drive."""

    state: State
    seen: Mapping[str, Seen]
    facts: Mapping[str, DriveFacts]
    labels: Mapping[str, labels.LabelFacts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What an apply did: every plan it ran (none when nothing differed) and the state afterwards."""

    state: State
    plans: tuple[Plan, ...] = field(default=())

    @property
    def changed(self) -> bool:
        """Whether anything was done."""
        return bool(self.plans)


class Reconciler:
    """The array behind its nodes' engines and its state folder.  Use it as a context manager."""

    def __init__(
        self,
        array: Array,
        store: Store,
        journal: Journal,
        connect: Callable[..., Session] = Session,
        files: FileStore | None = None,
    ) -> None:
        """``files`` is this machine's copy of the state, where ``store`` is not that itself."""
        self.array = array
        self._store = store
        self._journal = journal
        mark = None if files is None else files.folder / FORMED
        self.agents = Agents(array, mark) if array.active_active else None
        self._ha = store if isinstance(store, HaStore) else None
        self._files = files
        self._sessions: dict[str, Session] = {
            node.name: connect(engine_address(node.rpc), node=node.name) for node in array.nodes
        }

    @classmethod
    def in_folder(cls, array: Array, folder: Path, connect: Callable[..., Session] = Session) -> Self:
        """With the state kept as files in ``folder``; ``connect`` makes the sessions with the nodes."""
        files = FileStore(folder, [node.name for node in array.nodes])
        store = HaStore(files, Agents(array, folder / FORMED)) if array.active_active else files
        return cls(array, store, Journal(folder), connect, files)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as stack:
            for session in self._sessions.values():
                stack.callback(session.close)

    def state(self) -> State:
        """The stored state, or the empty first one for this array."""
        stored = self._store.load()
        if stored is None:
            return State(array=replace(self.array, volumes=(), subsystems=()), uuid=str(uuidlib.uuid4()))
        if stored.array.name != self.array.name:
            raise Refused(
                "STORE-004",
                f"this state folder belongs to array {stored.array.name}, not {self.array.name}",
                why="applying one array over the state of another would give away its slices",
                remedy="use another --state folder, or the right array.yaml",
            )
        return stored

    def look(self, state: State | None = None) -> View:
        """Observe every node and every attached drive's label; judged by ``state``, or by the stored one."""
        state = self.state() if state is None else state
        # What is wanted names objects that are ours although no state has them yet.
        judged = replace(state, array=self.array)
        jobs = {name: partial(observe, session, judged, name) for name, session in self._sessions.items()}
        observations = together(self._sessions, jobs)
        facts: dict[str, DriveFacts] = {}
        for observation in observations.values():
            facts.update(observation.facts)
        seen: dict[str, Seen] = {name: observation.seen for name, observation in observations.items()}
        seen |= self._moved_engines(state)
        found = self._read_labels(seen, facts)
        return View(state=state, seen=seen, facts=facts, labels=found)

    def _moved_engines(self, state: State) -> dict[str, Seen]:
        """Nodes whose engine was elsewhere before and still answers there: two engines of one node would both
        serve its groups (I1)."""
        found: dict[str, Seen] = {}
        for node in state.array.nodes:
            now = next((each.rpc for each in self.array.nodes if each.name == node.name), node.rpc)
            if now == node.rpc:
                continue
            try:
                with Session(engine_address(node.rpc), node=node.name) as session:
                    session.connect(deadline_s=OLD_ENGINE_S)
            except Unreachable:
                continue
            found[node.name] = Unknown(node=node.name, reason=f"its engine at {node.rpc} still runs; stop it first")
        return found

    def _read_labels(self, seen: Mapping[str, Seen], facts: Mapping[str, DriveFacts]) -> dict[str, labels.LabelFacts]:
        jobs = {
            name: partial(_labels_seen, session, image, facts)
            for name, session in self._sessions.items()
            if isinstance(image := seen[name], NodeImage)
        }
        found: dict[str, labels.LabelFacts] = {}
        for here in together(self._sessions, jobs).values():
            for drive, label in here.items():
                if found.setdefault(drive, label) != label:
                    found[drive] = labels.Foreign(what="one thing through one node and another through the other")
        return found

    def propose(self, view: View | None = None) -> tuple[View, Proposal]:
        """The plan for the array as it is wanted.  Drives that are files count with the size the file is to
        have, so that a plan for a new array shows its volumes at once."""
        view = view or self.look()
        facts = {**self._promised(), **view.facts}
        apart = self._apart(view)
        return view, make_plan(self.array, view.state, view.seen, facts, view.labels, whole=True, apart=apart)

    def _apart(self, view: View) -> frozenset[str]:
        """The nodes that a plan leaves out: fenced, and not to be observed."""
        if self.agents is None:
            return frozenset()
        return left_out(self.agents.views()) & {node.node for node in unknown_nodes(view)}

    def _promised(self) -> dict[str, DriveFacts]:
        return {
            drive.name: DriveFacts(
                size_bytes=drive.source.size_bytes, block_bytes=TRIAL_BLOCK_BYTES, serial=drive.serial or ""
            )
            for drive in self.array.drives
            if isinstance(drive.source, FileDrive)
        }

    def apply(self, consent: Consent | None = None, listen: Listener = quiet) -> Applied:
        """Make it so.  Raises the first refusal; nothing has been changed then."""
        with self._store.lock():
            return self._apply(consent or Consent(), listen)

    def _apply(self, consent: Consent, listen: Listener) -> Applied:
        plans: list[Plan] = []
        applier = Applier(self._sessions, self._store, self._journal)
        if self.agents is not None:
            plans += self._begin_with_agents(self.agents, applier, listen)
        for _round in range(MAX_ROUNDS):
            view, apart = self._admitted_look(listen)
            # Only what has been seen counts here: a promised drive gets its slices in the round after its attach.
            proposal = make_plan(self.array, view.state, view.seen, view.facts, view.labels, apart=apart)
            problems = [*proposal.problems, *refuse_loss(view.state, proposal, consent)]
            if problems:
                raise _all_of(problems)
            state = view.state
            if proposal.state != view.state:
                state = self._store.save(proposal.state)
            if not proposal.plan:
                if proposal.plan.pending:
                    raise PartlyApplied(
                        "PLAN-025",
                        f"not yet made: {', '.join(proposal.plan.pending)}",
                        why="a drive of their pool has not been seen",
                        remedy="ws7000 drive list shows which; bring it back, or take it out of the pool",
                    )
                return Applied(state=self._hand_over(state, apart, listen), plans=tuple(plans))
            applier.run(proposal.plan, state, view.facts, listen)
            plans.append(proposal.plan)
        raise PartlyApplied(
            "PLAN-022",
            f"after {MAX_ROUNDS} rounds something still differs",
            why=proposal.plan.steps[0].sentence if proposal.plan else "",
            remedy="see ws7000 array diff: another program may be changing the engine at the same time",
        )

    def _begin_with_agents(self, agents: Agents, applier: Applier, listen: Listener) -> list[Plan]:
        """Hear every agent before anything is changed.  Where nobody leads a formed array, as after a power cut of both
        nodes, the drives are attached first, by this machine's copy of the state: the agents judge by the drives who
        begins, and only then the journal can be read.  Nothing else is done by that copy."""
        views = agents.views()
        if not agents.formed(views):
            agents.heard()
            return []
        if any(isinstance(view, AgentView) and view.epoch for view in views.values()):
            agents.heard(left_out(views))
            return []
        state = self._files.load() if self._files is not None else None
        if state is None:
            return []
        view = self.look(state)
        answering = {name for name, each in views.items() if isinstance(each, AgentView)}
        apart = frozenset(view.seen) - answering
        proposal = make_plan(self.array, state, view.seen, view.facts, view.labels, apart=apart)
        kept = [stage for stage in proposal.plan.stages if stage.phase in _TO_REACH_DRIVES]
        plan = replace(proposal.plan, stages=tuple(kept)) if not proposal.problems else Plan()
        if plan:
            applier.run(plan, state, view.facts, listen)
        attached = [name for name in sorted(answering) if isinstance(view.seen[name], NodeImage)]
        agents.wait_admitted(attached, _waiting(listen))
        return [plan] if plan else []

    def _admitted_look(self, listen: Listener) -> tuple[View, frozenset[str]]:
        """A look once every node that has drives may use them: before that, a drive that is reserved for members says
        neither whose it is nor takes anything.  And the nodes that are left out, since they are fenced and silent."""
        view = self.look()
        if self.agents is None:
            return view, frozenset()
        attached = [name for name, seen in view.seen.items() if isinstance(seen, NodeImage) and seen.drives]
        if self.agents.wait_admitted(attached, _waiting(listen)):
            view = self.look()
        apart = self._apart(view)
        self.agents.heard(apart)
        return view, apart

    def _hand_over(self, state: State, apart: frozenset[str], listen: Listener) -> State:
        """With high availability: what was built is the agents' to serve.  The first time, they form the array, which
        gives everything to the node that forms it, and then each group its home."""
        if self.agents is None or self._ha is None:
            return state
        say = _waiting(listen)
        new = not self.agents.formed(self.agents.views())
        if new:
            say("node a: forming the array on the quorum drives")
            state = self._ha.form()
        nodes = [node.name for node in self.array.nodes if node.name not in apart]
        self.agents.built(state.generation, nodes)
        self.agents.wait_admitted(nodes, say)
        if new:
            self.agents.failback(say)
        self.agents.wait_served(say)
        return state

    def switchover(self, to: str, subsystem: str | None = None, listen: Listener = quiet) -> Applied:
        """Move ANA groups to node ``to``, or to their homes with ``to="home"``; of one subsystem or of all.

        With high availability the leader's agent does it, and the state does not change."""
        if self.agents is not None:
            self.agents.switchover(to, subsystem)
            return Applied(state=self.state())
        with self._store.lock():
            state = self.state()
            owners = moved_owners(state, to, subsystem)
            if owners != state.owners:
                self._store.save(replace(state, owners=owners))
            return self._apply(Consent(), listen)


def _waiting(listen: Listener) -> Say:
    return lambda text: listen(Progress(done=0, total=0, step=None, waits=text))


def _labels_seen(session: Session, image: NodeImage, facts: Mapping[str, DriveFacts]) -> dict[str, labels.LabelFacts]:
    """The label of every drive that a node reaches."""
    names = sorted(name for name, drive in image.drives.items() if name in facts and drive.connected)
    here = _look_at(session, names, facts, labels.LABEL_BYTES)
    # Most drives carry a label; only what seems blank is looked at more closely.
    blank = [drive for drive, label in here.items() if isinstance(label, labels.Blank)]
    return here | _look_at(session, blank, facts, labels.LOOK_BYTES)


def _look_at(
    session: Session, drives: list[str], facts: Mapping[str, DriveFacts], size_bytes: int
) -> dict[str, labels.LabelFacts]:
    """Read the first ``size_bytes`` of each drive and say whose it is."""
    if not drives:
        return {}
    batch = [calls.read_start(drive, facts[drive].block_bytes, size_bytes) for drive in drives]
    replies = session.pipeline(batch, deadline_s=DEADLINE_S)
    # A drive that cannot be read is left out: nothing is built on it (PLAN-024), and nothing else waits for it.
    return {
        drive: labels.decode(reply.data)
        for drive, reply in zip(drives, replies, strict=True)
        if not isinstance(reply, Ws7000Error) and reply.ok
    }


def _all_of(problems: list[Ws7000Error]) -> Ws7000Error:
    """The first problem, carrying all of them for the output."""
    first = problems[0]
    first.details = {**first.details, "problems": [problem.to_json() for problem in problems]}
    return first


def unknown_nodes(view: View) -> list[Unknown]:
    """The nodes that could not be observed."""
    return [seen for seen in view.seen.values() if isinstance(seen, Unknown)]
