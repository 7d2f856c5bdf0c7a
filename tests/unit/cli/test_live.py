"""The commands against real engines: three embedded ones on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from small_lab import MIB, small_lab

from controlplane.domain.desired import Array, Volume
from controlplane.spec.load import to_yaml

VOLUMES = (
    Volume(name="wide", size_bytes=4 * MIB, pool="fast", home="a", hosts=("h1",)),
    Volume(name="safe", size_bytes=2 * MIB, pool="safe", home="b", hosts=("h1", "h2")),
)


def test_the_life_of_an_array(run: Callable[..., Any], tmp_path: Path) -> None:
    with small_lab("embedded", tmp_path, *VOLUMES) as lab:
        env = {"WS7000_STATE": str(tmp_path / "state"), "WS7000_ARRAY": str(tmp_path / "array.yaml")}

        def write(array: Array) -> None:
            (tmp_path / "array.yaml").write_text(to_yaml(array), encoding="utf-8")

        def call(*words: str, status: int = 0) -> Any:
            ran = run(*words, env=env)
            assert ran.status == status, ran.err
            return ran

        write(lab.array)
        planned = call("array", "plan").out
        assert "a, b: attach 6 drives: d0..d5" in planned
        assert call("array", "plan", "--check", status=3).out == planned
        assert call("array", "apply", "--dry-run").out == planned
        assert "steps done in 2 rounds" in call("array", "apply").out
        assert "nothing to do" in call("array", "apply").out
        assert json.loads(call("array", "apply", "-o", "json").out)["changed"] is False
        assert "nothing to do" in call("array", "diff").out

        items = {item["name"]: item for item in json.loads(call("volume", "list", "-o", "json").out)["items"]}
        assert {name: (item["state"], item["owner"]) for name, item in items.items()} == {
            "wide": ("OK", "a"),
            "safe": ("OK", "b"),
        }
        assert json.loads(call("array", "show", "-o", "json").out)["state"] == "OK"
        assert "embedded engine" in call("node", "list").out

        assert "on tcp://" in call("array", "switchover", "--to", "b", "--dry-run").out
        assert json.loads(call("volume", "show", "wide", "-o", "json").out)["owner"] == "a"
        call("array", "switchover", "--to", "b")
        assert json.loads(call("volume", "show", "wide", "-o", "json").out)["owner"] == "b"
        call("subsystem", "switchover", "default", "--to", "home")

        write(replace(lab.array, volumes=VOLUMES[:1]))
        warned = call("array", "plan").out
        assert "[DATA LOSS: what safe holds is gone for good]" in warned
        assert "--destroy safe" in warned
        assert "PLAN-011" in call("array", "apply", status=6).err
        call("array", "diff", status=3)
        call("array", "apply", "--destroy", "safe")
        assert call("volume", "list", "-o", "name").out == "volume/wide\n"
        assert "delete volume safe" in call("array", "history", "--last", "500").out

        lab.engines["b"].kill()
        states = [item["state"] for item in json.loads(call("node", "list", "-o", "json").out)["items"]]
        assert states == ["OK", "UNKNOWN"]
        assert json.loads(call("volume", "show", "wide", "-o", "json").out)["state"] == "DEGRADED"
