"""YAML 1.2 core schema, places, and the bounds of the reader."""

from __future__ import annotations

import math

import pytest

from controlplane.spec import yaml_source
from controlplane.spec.yaml_source import plain_scalar, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0000:01:00.0", "0000:01:00.0"),
        ("0000:c1:00.0", "0000:c1:00.0"),
        ("12:30:45", "12:30:45"),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("-5", -5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1_000", "1_000"),
        ("on", "on"),
        ("yes", "yes"),
        ("True", True),
        ("false", False),
        ("2016-06-01", "2016-06-01"),
        ("~", None),
        ("", None),
        ("Null", None),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("9" * 30, "9" * 30),
    ],
)
def test_a_plain_scalar_means_what_yaml_1_2_says(text: str, value: object) -> None:
    assert plain_scalar(text) == value
    assert type(plain_scalar(text)) is type(value)


def test_quotes_make_text() -> None:
    assert read_yaml("a: '1'\nb: \"true\"\nc: !!str 5\n", "f").value == {"a": "1", "b": "true", "c": "5"}


def test_places_count_from_one() -> None:
    source = read_yaml("a:\n  - b: 1\n    c: x\n", "f.yaml")
    assert str(source.place(("a", 0, "c"))) == "f.yaml:3:8"
    assert str(source.place(("a", 0, "c"), key=True)) == "f.yaml:3:5"
    assert str(source.place(("a", 0, "nope"))) == "f.yaml:2:5"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: 1\na: 2\n", "SPEC-005"),
        ("a: {b: 1, b: 2}\n", "SPEC-005"),
        ("a: [1\n", "SPEC-001"),
        ("a:\n\t- 1\n", "SPEC-001"),
        ('a: "\\UFFFFFFFF"\n', "SPEC-001"),
        ("a: \x07\n", "SPEC-001"),
        ('a: "\\uD800"\n', "SPEC-020"),
        ("a: !!python/object:os.system x\n", "SPEC-008"),
        ("a: !secret x\n", "SPEC-008"),
        ("a: *b\n", "SPEC-008"),
        ("a: &a [*a]\n", "SPEC-008"),
        ("b: &b {x: 1}\na:\n  <<: *b\n", "SPEC-008"),
        ("a: 1\n---\nb: 2\n", "SPEC-008"),
        ("1: x\n", "SPEC-006"),
        ("[x]: y\n", "SPEC-006"),
        ("a: " + "[" * 40 + "]" * 40 + "\n", "SPEC-007"),
        ("a: x" + " " * yaml_source.MAX_BYTES, "SPEC-007"),
    ],
)
def test_what_is_refused(text: str, code: str) -> None:
    assert code in {problem.code for problem in read_yaml(text, "f").problems}


def test_anchors_repeat_values() -> None:
    source = read_yaml("a: &x {k: [1, 2]}\nb: *x\n", "f")
    assert source.value == {"a": {"k": [1, 2]}, "b": {"k": [1, 2]}}
    assert not source.problems


def test_a_billion_laughs_are_cut_short() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    source = read_yaml("\n".join(lines), "f")
    assert [problem.code for problem in source.problems] == ["SPEC-007"]
    assert source.value is None


def test_many_values_are_cut_short() -> None:
    source = read_yaml("a: [" + "1," * (yaml_source.MAX_VALUES + 1) + "]", "f")
    assert [problem.code for problem in source.problems] == ["SPEC-007"]


def test_a_byte_order_mark_is_no_character() -> None:
    assert read_yaml("\ufeffa: 1\n", "f").value == {"a": 1}
