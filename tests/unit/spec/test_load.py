"""Resolving: shorthand, defaults, cross-checks, warnings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.domain.desired import FabricsDrive, FileDrive, HaMode, HaPolicy, Shelf, heartbeat_paths
from controlplane.domain.errors import SpecError
from controlplane.spec.load import Loaded, json_schema, load

Bend = Callable[..., str]
Accept = Callable[[str], Loaded]
Codes = Callable[[str], list[str]]
NODE_B = """\
  - name: b
    rpc: ./run/b.sock
    heartbeat: 7701
    ports: [{transport: tcp, address: 127.0.0.1, service: 4421}]
drives:"""


def test_shorthand_and_defaults(legal: str, accept: Accept) -> None:
    loaded = accept(legal)
    array = loaded.array
    assert loaded.warnings == ()
    assert [drive.name for drive in array.drives] == ["d0", "d1", "d2", "d3"]
    assert array.drive("d2").source == FileDrive(path="/srv/drives/d2.img", size_bytes=64 * 1024**2)
    assert array.pool("fast").drives == ("d0", "d1", "d2", "d3")
    assert array.shelf == Shelf(address="127.0.0.1", service=4430)
    assert array.node("a").ports[0].service == 4420
    assert array.volume("data").chunk_bytes == 64 * 1024
    assert array.pool_of_drive("d1") is array.pool("fast")
    assert array.volumes_of("default") == array.volumes


def test_paths_count_from_the_directory_of_the_file(legal: str, tmp_path: Path) -> None:
    file = tmp_path / "array.yaml"
    file.write_text(legal)
    assert load(file).array.node("a").rpc == str(tmp_path / "run/a.sock")


def test_nvmeof_drives_by_pattern(bend: Bend, accept: Accept) -> None:
    text = bend(
        '  - file: "./drives/d{0..3}.img"\n    size: 64MiB\n',
        '  - name: "e{01..02}"\n'
        '    nvmeof: {transport: rdma, address: "FD00::1", nqn: "nqn.2020-01.com.example:shelf:{1..2}"}\n',
    )
    assert accept(text).array.drive("e02").source == FabricsDrive(
        transport="rdma", address="fd00::1", service=4420, nqn="nqn.2020-01.com.example:shelf:2"
    )


def test_ha_with_a_shelf_both_reach(bend: Bend, accept: Accept) -> None:
    array = accept(
        bend("ha: none", "ha: {policy: slow, quorum_drives: 3}\nshelf: {}", "drives:\n  - file", NODE_B + "\n  - file")
    ).array
    assert array.ha is HaMode.ACTIVE_ACTIVE
    assert array.ha_intent is not None
    assert array.ha_intent.policy is HaPolicy.SLOW
    assert array.ha_intent.secret_file == "/srv/ha.secret"
    assert not array.ha_intent.failback
    assert [node.agent for node in array.nodes] == ["/srv/run/a.agent.sock", "/srv/run/b.agent.sock"]
    assert heartbeat_paths(*array.nodes) == (("127.0.0.1", "127.0.0.1"),)


def test_without_ha_a_node_has_no_agent(legal: str, accept: Accept) -> None:
    assert accept(legal).array.node("a").agent == ""


@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        (("    heartbeat: 7701\n", ""), "SPEC-034"),
        (("./run/b.sock", "localhost:5260"), "SPEC-039"),
        (("heartbeat: 7701", "heartbeat: 7701\n    agent: ./run/a.agent.sock"), "SPEC-034"),
        (("heartbeat: 7701", f"heartbeat: 7701\n    agent: /{'x' * 106}"), ""),
        (("heartbeat: 7701", f"heartbeat: 7701\n    agent: ./{'x' * 103}"), "SPEC-019"),
        (("heartbeat: 7701", "heartbeat: 0"), "SPEC-012"),
        (("service: 4421}", "service: 4421, takeover: {interface: eth0, prefix: 24}}"), "SPEC-039"),
        (
            (
                "service: 4421}",
                "service: 4421, takeover: {interface: eth0, prefix: 24}}",
                "heartbeat: 7701",
                "heartbeat_addresses: [127.0.0.2]",
            ),
            "",
        ),
        (
            (
                "service: 4421}",
                "service: 4421, takeover: {interface: eth0, prefix: 33}}",
                "heartbeat: 7701",
                "heartbeat_addresses: [127.0.0.2]",
            ),
            "SPEC-012",
        ),
        (("heartbeat: 7701", 'heartbeat_addresses: ["::1"]'), "SPEC-039"),
        (("drives: all", "drives: [d0, d1]"), "SPEC-044"),
        (("quorum_drives: 3", "quorum_drives: 3, failback: maybe"), "SPEC-006"),
    ],
)
def test_what_high_availability_needs(
    bend: Bend, accept: Accept, codes: Codes, pieces: tuple[str, ...], code: str
) -> None:
    text = bend(
        "ha: none", "ha: {policy: slow, quorum_drives: 3}\nshelf: {}", "drives:\n  - file", NODE_B + "\n  - file"
    )
    for old, new in zip(pieces[::2], pieces[1::2], strict=True):
        assert old in text
        text = text.replace(old, new)
    if code:
        assert code in codes(text)
    else:
        accept(text)


def test_an_address_moves_with_high_availability_only(bend: Bend, codes: Codes) -> None:
    text = bend("address: 127.0.0.1}", "address: 127.0.0.1, takeover: {interface: eth0, prefix: 8}}")
    assert codes(text) == ["SPEC-039"]


@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        (("drives: all", "drives: [d0, d0]"), "SPEC-032"),
        (("drives: all", "drives: []"), "SPEC-012"),
        (("drives: all", "drives: all\n    slice_size: 48MiB"), "SPEC-042"),
        (("drives: all", "drives: all\n    slice_size: 1536KiB"), "SPEC-012"),
        (("drives: all", "drives: all\n    slice_size: 4MiB\n    slices_per_drive: 16"), "SPEC-042"),
        (("drives: all", "drives: all\n    slices_per_drive: 513"), "SPEC-012"),
        (("drives: all", "drives: all\n    slice_size: 16MiB", "size: 32MiB", "size: 8MiB"), "SPEC-038"),
        (("drives: all", 'drives: ["d{3..0}"]'), "SPEC-017"),
        (("hosts: [me]", "hosts: [me, me]"), "SPEC-030"),
        (("hosts: [me]", "hosts: [me]\n    subsystem: tenant"), "SPEC-031"),
        (("size: 64MiB", "size: 65MB"), "SPEC-012"),
        (("size: 64MiB", "size: 1MiB"), "SPEC-042"),
        (("    size: 64MiB\n", ""), "SPEC-018"),
        (('"./drives/d{0..3}.img"', '"./drives/D{0..3}.img"'), "SPEC-010"),
        (('"./drives/d{0..3}.img"', '"./drives/all.img"'), "SPEC-010"),
        (('- file: "./drives/d{0..3}.img"', '- file: "d{0..3}"\n    name: "x{0..4}"'), "SPEC-017"),
        (("address: 127.0.0.1", "address: 127.0.0.1, service: 4430", "ha: none", "ha: none\nshelf: {}"), "SPEC-034"),
        (("address: 127.0.0.1", "address: 127.0.0.1, service: 4430"), "SPEC-034"),
        (("rpc: ./run/a.sock", "rpc: 127.0.0.1:4420"), "SPEC-034"),
        (("rpc: ./run/a.sock", "rpc: /" + "x" * 107), "SPEC-019"),
        (("rpc: ./run/a.sock", "rpc: ./" + "x" * 103), "SPEC-019"),
        (("size: 32MiB", "size: 9999999999999PiB"), "SPEC-012"),
        (("hosts: [me]", "hosts: [me]\n    qos: {rate: 1GiB}"), "SPEC-011"),
        (("hosts: [me]", "hosts: [me]\n    qos: {iops: 0}"), "SPEC-040"),
        (("ha: none", "ha: fast"), "SPEC-013"),
        (("ha: none", "ha:"), "SPEC-006"),
        (("ha: none", "ha: none\nnetwork: {profile: custom}"), "SPEC-004"),
        (("ha: none", 'ha: none\nsubsystems: [{name: x, nqn: "nqn.2014-08.org.nvmexpress.discovery"}]'), "SPEC-014"),
        (("name: demo", "name: demo\nnodes: []"), "SPEC-005"),
    ],
)
def test_what_does_not_fit(pieces: tuple[str, ...], code: str, bend: Bend, codes: Codes) -> None:
    assert code in codes(bend(*pieces))


def test_unknown_names_are_forgiven_if_a_refused_entry_may_define_them(bend: Bend, codes: Codes) -> None:
    assert codes(bend("    drives: all", "    drives: 5")) == ["SPEC-006"]
    assert codes(bend("size: 64MiB", "size: 64M", "drives: all", "drives: [d0, d7]")) == ["SPEC-011"]


def test_a_bad_key_does_not_hide_the_next_mistake(bend: Bend, codes: Codes) -> None:
    text = bend(
        "size: 32MiB\n    pool: fast", "size: 32M\n    pool: fsat", "hosts: [me]", "hosts: [you]\n    colour: red"
    )
    assert codes(text) == ["SPEC-011", "SPEC-031", "SPEC-031", "SPEC-003"]


def test_mirror_needs_balanced_failure_domains(bend: Bend, codes: Codes, accept: Accept) -> None:
    drives = '  - {file: "./l{0..2}.img", size: 64MiB, failure_domain: left}\n  - {file: ./r.img, size: 64MiB}\n'
    old = '  - file: "./drives/d{0..3}.img"\n    size: 64MiB\n'
    mirror = "drives: all\n    protection: mirror"
    assert codes(bend(old, drives, "drives: all", mirror)) == ["SPEC-035"]
    assert accept(bend(old, drives)).array.pool("fast")
    assert codes(bend("drives: all", mirror, "pool: fast", "pool: fast\n    stripe: 3")) == ["SPEC-036"]
    assert accept(bend("drives: all", mirror, "pool: fast", "pool: fast\n    stripe: 2")).array


def test_limits_of_the_engine(bend: Bend, codes: Codes) -> None:
    ports = "".join(f"      - {{transport: tcp, address: 127.0.0.1, service: {5000 + i}}}\n" for i in range(17))
    assert codes(bend("      - {transport: tcp, address: 127.0.0.1}\n", ports)) == ["SPEC-041"]
    tenants = "".join(f"  - name: t{i}\n" for i in range(1024))
    assert codes(bend("ha: none\n", f"ha: none\nsubsystems:\n{tenants}")) == ["SPEC-041"]


def test_traffic_classes(bend: Bend, codes: Codes, accept: Accept) -> None:
    classes = "[{name: x, dscp: 1, priority: 1, share: 60%}, {name: y, dscp: 1, priority: 2, share: 50%, strict: true}]"
    text = bend("ha: none", f"ha: none\nnetwork: {{profile: custom, classes: {classes}}}")
    assert codes(text) == ["SPEC-045", "SPEC-045", "SPEC-045"]
    network = accept(bend("ha: none", "ha: none\nnetwork: {profile: sonic, cable: 40m}")).array.network
    assert network is not None
    assert (network.mtu, network.cable_m, [each.dscp for each in network.classes]) == (9000, 40, [3, 48])


def test_warnings(bend: Bend, accept: Accept) -> None:
    loaded = accept(
        bend(
            "rpc: ./run/a.sock", "rpc: 10.0.0.1:5260",
            "drives: all", "drives: [d0, d1]",
            "    hosts: [me]", "    read_only: true",
        )
    )  # fmt: skip
    assert [warning.code for warning in loaded.warnings] == ["SPEC-063", "SPEC-062", "SPEC-060", "SPEC-061"]
    assert all(warning.why and warning.remedy for warning in loaded.warnings)


@pytest.mark.parametrize(("data", "where"), [(b"a: \xff\n", ":1:4"), (None, ""), (b"# only a comment\n", ":1:1")])
def test_files_that_cannot_be_read(data: bytes | None, where: str, tmp_path: Path) -> None:
    file = tmp_path / "array.yaml"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(SpecError) as caught:
        load(file)
    error = caught.value.problems[0] if caught.value.problems else caught.value
    assert error.code == "SPEC-002"
    assert str(error.where) == f"{file}{where}"


def test_many_problems_are_cut_at_a_hundred(bend: Bend, codes: Codes) -> None:
    assert len(codes(bend("drives: all", f"drives: [{', '.join(f'x{i}' for i in range(500))}]"))) == 100


def test_json_schema_is_for_editors() -> None:
    schema = json_schema()
    text = json.dumps(schema)
    assert schema["required"] == ["apiVersion", "kind", "name", "nodes", "drives", "ha"]
    assert '"null"' not in text
    assert schema["$defs"]["DriveSpec"]["properties"]["pcie"]["anyOf"] == [
        {"type": "string"},
        {"items": {"type": "string"}, "type": "array"},
    ]
    assert schema["$defs"]["VolumeSpec"]["properties"]["chunk"]["default"] == "64KiB"
    assert schema["additionalProperties"] is False
