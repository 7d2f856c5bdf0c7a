"""Running the command line in-process: status, stdout and stderr."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from planner_model import Model, small_array

from cli.main import main
from controlplane.reconcile.reconciler import View
from controlplane.store.file import FileStore


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did."""

    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run("volume", "list")``, without anything of the surroundings' environment."""
    for name in (
        "WS7000_ARRAY",
        "WS7000_STATE",
        "COLUMNS",
        "NO_COLOR",
        "FORCE_COLOR",
        "CLICOLOR_FORCE",
        "TTY_COMPATIBLE",
    ):
        monkeypatch.delenv(name, raising=False)

    def ran(*words: str, stdin: str = "", env: dict[str, str] | None = None) -> Ran:
        result = CliRunner().invoke(main, list(words), input=stdin, env=env)
        return Ran(result.exit_code, result.stdout, result.stderr)

    return ran


@pytest.fixture
def model() -> Model:
    """A settled array of two nodes, six drives and three volumes."""
    made = Model(small_array())
    made.settle(small_array())
    return made


def view_of(model: Model) -> View:
    """What a look would see."""
    return View(state=model.state, seen=dict(model.nodes), facts=model.facts, labels=dict(model.labels))


@pytest.fixture
def view(model: Model) -> View:
    """The settled array, everything there."""
    return view_of(model)


@pytest.fixture
def applied(model: Model, tmp_path: Path) -> Path:
    """A state folder of an array whose engines do not answer: nothing listens at their sockets."""
    from dataclasses import replace

    nodes = tuple(replace(node, rpc=str(tmp_path / f"{node.name}.sock")) for node in model.state.array.nodes)
    state = replace(model.state, generation=0, array=replace(model.state.array, nodes=nodes))
    FileStore(tmp_path / "state").save(state)
    return tmp_path / "state"
