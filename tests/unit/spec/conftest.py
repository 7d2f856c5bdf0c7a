"""A small legal array.yaml, and ways to bend it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.domain.errors import SpecError
from controlplane.spec.load import Loaded, load

LEGAL = """\
apiVersion: ws7000/v1
kind: Array
name: demo
ha: none
nodes:
  - name: a
    rpc: ./run/a.sock
    ports:
      - {transport: tcp, address: 127.0.0.1}
drives:
  - file: "./drives/d{0..3}.img"
    size: 64MiB
pools:
  - name: fast
    drives: all
hosts:
  - {name: me, nqn: "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-4333-8444-555555555555"}
volumes:
  - name: data
    size: 32MiB
    pool: fast
    hosts: [me]
"""

Bend = Callable[..., str]


@pytest.fixture
def legal() -> str:
    return LEGAL


@pytest.fixture
def bend() -> Bend:
    """The legal text with pieces replaced: ``bend("ha: none", "ha: {}")``; pairs of old and new."""

    def bent(*pieces: str) -> str:
        text = LEGAL
        for old, new in zip(pieces[::2], pieces[1::2], strict=True):
            assert old in text
            text = text.replace(old, new)
        return text

    return bent


@pytest.fixture
def accept() -> Callable[[str], Loaded]:
    return lambda text: load(text, "array.yaml", base=Path("/srv"))


@pytest.fixture
def codes() -> Callable[[str], list[str]]:
    """The codes of the problems of a text, in the order of the lines."""

    def found(text: str) -> list[str]:
        with pytest.raises(SpecError) as caught:
            load(text, "array.yaml", base=Path("/srv"))
        return [problem.code for problem in caught.value.problems]

    return found
