"""Properties of array.yaml: no text makes the reader crash, and what is exported reads back the same."""

from __future__ import annotations

import string
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from controlplane.domain import desired as d
from controlplane.domain.codes import PAGES
from controlplane.domain.errors import Place, SpecError
from controlplane.spec.load import load, render, to_yaml

EXAMPLES = [path.read_text() for path in sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))]
MIB = 1024**2
JUNK = [
    *("", "~", "[]", "{}", "- x", "-1", "1e9", "0x10", "true", "9" * 30, "\u0661TiB", "*a", "&a x"),
    *('"\\u0000"', '"\\uD800"', '"{1..2}"', "[[1]]", "{a: b}"),
]


def read(text: str) -> None:
    """Load it; a refusal must be a SpecError whose problems have pages and places inside the text."""
    refusal: SpecError | None = None
    try:
        load(text, "array.yaml", base=Path("/srv"))
    except SpecError as error:
        refusal = error
    if refusal is None:
        return
    assert refusal.problems
    render(refusal).encode()
    for problem in refusal.problems:
        assert problem.code in PAGES
        assert isinstance(problem.where, Place)
        assert problem.where.line >= 1
        assert problem.where.column >= 1
        assert problem.why
        assert problem.remedy


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("{}[]:-&*!|>'\"%@`#,? \n\t\\<~"))))
def test_any_text_is_read_or_refused(text: str) -> None:
    read(text)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_bent_example_is_read_or_refused(data: st.DataObject) -> None:
    lines = data.draw(st.sampled_from(EXAMPLES)).splitlines()
    lines = [line for line in lines if not line.lstrip().startswith("#")]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        kind = data.draw(st.sampled_from(["drop", "twice", "value", "cut", "indent"]))
        line = lines[at]
        junk = data.draw(st.sampled_from(JUNK))
        if kind == "drop" and len(lines) > 1:
            del lines[at]
        elif kind == "twice":
            lines.insert(at, line)
        elif kind == "value" and ":" in line:
            lines[at] = line.split(":")[0] + ": " + junk
        elif kind == "cut":
            lines[at] = line[: len(line) // 2]
        else:
            lines[at] = " " + line
    read("\n".join(lines))


_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["all", "2TiB", "a", "d0"]),
)
_keys = st.sampled_from(
    ["name", "size", "pool", "drives", "hosts", "nqn", "pcie", "file", "serial", "rpc", "ports", "nvmeof", "qos", "x"]
)
_trees: SearchStrategy[object] = st.recursive(
    _scalars, lambda below: st.lists(below, max_size=3) | st.dictionaries(_keys, below, max_size=5), max_leaves=12
)


def flow(value: object) -> str:
    """A value in YAML's flow style, as a person might type it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(below)}" for key, below in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(below) for below in value) + "]"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return {None: "null", True: "true", False: "false"}.get(value) or str(value)  # type: ignore[call-overload,no-any-return]


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["nodes", "drives", "pools", "volumes", "hosts", "subsystems", "network", "ha", "shelf", "name"]
        ),
        _trees,
    )
)
def test_any_tree_is_read_or_refused(tree: dict[str, object]) -> None:
    read("apiVersion: ws7000/v1\nkind: Array\n" + "".join(f"{key}: {flow(value)}\n" for key, value in tree.items()))


_names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True).filter(lambda name: name != "all")
_words = ["0o17", "0x10", "1e5", "null", "true", "no", "on", "12", "017", "y", "0"]
_any_name = st.one_of(_names, st.sampled_from(_words))
_paths = st.text(alphabet=string.ascii_letters + "äö€ :#'\"\\%{,", min_size=1, max_size=12).map(
    lambda text: "/x/" + text.replace("{", "_")
)


def _bmcs(number: int) -> st.SearchStrategy[d.Bmc]:
    account = {"user": st.sampled_from(["admin", "ä b"]), "password_file": _paths}
    return st.builds(d.Bmc, ipmi=st.just(f"10.9.0.{number}"), **account) | st.builds(
        d.Bmc,
        redfish=st.sampled_from(
            [f"https://bmc-{number}", f"https://[fd00::{number}]:8443", f"http://127.0.0.{number}"]
        ),
        verify=st.booleans(),
        ca_file=st.none() | _paths,
        **account,
    )


def _nqn(number: int) -> str:
    return f"nqn.2014-08.org.nvmexpress:uuid:11111111-2222-4333-8444-{number:012d}"


@st.composite
def _drives(draw: DrawFn) -> tuple[d.Drive, ...]:
    titles = draw(st.lists(_any_name, min_size=3, max_size=8, unique=True))
    kind = draw(st.sampled_from(["pcie", "fabrics", "file"]))
    found = []
    for number, name in enumerate(titles):
        source: d.PcieDrive | d.FabricsDrive | d.FileDrive
        if kind == "pcie":
            source = d.PcieDrive(address=f"0000:{number + 1:02x}:00.0")
        elif kind == "fabrics":
            source = d.FabricsDrive(transport="tcp", address="fd00::9", service=4420, nqn=_nqn(number))
        else:
            source = d.FileDrive(path=f"{draw(_paths)}{number}", size_bytes=4096 * draw(st.integers(16384, 10**9)))
        serial = draw(st.none() | st.sampled_from(["12345", "0x1F", "1e5", "S 1", "true"]))
        found.append(d.Drive(name=name, source=source, serial=f"{serial}{number}" if serial else None))
    return tuple(found)


def _qos() -> SearchStrategy[d.Qos]:
    rate = st.none() | st.integers(1, 10**6).map(lambda mib: mib * MIB)
    return st.builds(
        d.Qos,
        rw_iops=st.none() | st.integers(1, 10**6).map(lambda k: k * 1000),
        rw_bytes_per_s=rate,
        read_bytes_per_s=rate,
        write_bytes_per_s=rate,
    )


@st.composite
def arrays(draw: DrawFn) -> d.Array:
    """Legal arrays, as the resolver could have made them."""
    drives = draw(_drives())
    protection = draw(st.sampled_from(list(d.Protection)))
    pool = d.Pool(
        name=draw(_any_name),
        drives=tuple(drive.name for drive in drives),
        protection=protection,
        slices_per_drive=draw(st.none() | st.integers(2, 512)),
    )
    hosts = tuple(
        d.Host(name=name, nqn=_nqn(number), secret_file=draw(st.none() | _paths))
        for number, name in enumerate(draw(st.lists(_any_name, max_size=3, unique=True)))
    )
    tenants = draw(st.lists(_any_name, max_size=2, unique=True).map(lambda names: [*names, "default"]))
    name = draw(_any_name)
    volumes = tuple(
        d.Volume(
            name=title,
            size_bytes=draw(st.integers(1, 2**60)),
            pool=pool.name,
            subsystem=draw(st.sampled_from(tenants)),
            stripe_width=draw(st.none() | st.just(1)),
            chunk_bytes=draw(st.sampled_from([4096, 65536, MIB])),
            home=draw(st.sampled_from(["a", "b", None])),
            qos=draw(_qos()),
            hosts=tuple(host.name for host in hosts),
            read_only=draw(st.booleans()),
        )
        for title in draw(st.lists(_any_name, max_size=3, unique=True))
    )
    nodes = tuple(
        d.Node(
            name=node,  # type: ignore[arg-type]
            rpc=draw(st.sampled_from([f"/run/{node}.sock", f"localhost:526{i}", f"[::1]:526{i}"])),
            ports=(d.Port(transport="rdma", address=f"10.0.0.{i}", service=4420, family="ipv4"),),
            cores=tuple(draw(st.lists(st.integers(0, 1023), max_size=4, unique=True))),
        )
        for i, node in enumerate(["a", "b"], start=1)
    )
    intent = draw(
        st.none()
        | st.builds(
            d.HaIntent,
            policy=st.sampled_from(list(d.HaPolicy)),
            quorum_drives=st.just(3),
            secret_file=_paths,
            failback=st.booleans(),
            power=st.sampled_from(list(d.PowerPolicy)),
        )
    )
    if intent is None or intent.power is d.PowerPolicy.OFF:
        bmcs = [draw(st.none() | _bmcs(number)) for number in (1, 2)]
    else:
        bmcs = [draw(_bmcs(number)) for number in (1, 2)]
    nodes = tuple(replace(node, bmc=bmc) for node, bmc in zip(nodes, bmcs, strict=True))
    if intent is not None:
        moves = draw(st.none() | st.just(d.Takeover(interface="eth0.1", prefix=24)))
        nodes = tuple(
            replace(
                node,
                agent=f"/run/{node.name}.agent.sock",
                heartbeat=draw(st.integers(1, 65535)),
                heartbeat_addresses=(f"fd00::{node.name}",),
                ports=tuple(replace(port, takeover=moves) for port in node.ports),
            )
            for node in nodes
        )
    files = isinstance(drives[0].source, d.FileDrive)
    return d.Array(
        name=name,
        nodes=nodes,
        drives=drives,
        pools=(pool,),
        subsystems=tuple(d.Subsystem(name=each, nqn=d.subsystem_nqn(name, each)) for each in tenants),
        volumes=volumes,
        hosts=hosts,
        ha=d.HaMode.NONE if intent is None else d.HaMode.ACTIVE_ACTIVE,
        network=draw(st.none() | st.just(d.NetworkIntent(profile="custom", mtu=9000, cable_m=5, classes=(
            d.TrafficClass(name="roce", dscp=26, priority=3, lossless=True, share_percent=50),)))),
        shelf=d.Shelf(address="127.0.0.1", service=4430) if files else None,
        ha_intent=intent,
    )  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(arrays())
def test_what_is_exported_reads_back_the_same(array: d.Array) -> None:
    text = to_yaml(array)
    try:
        again = load(text).array
    except SpecError as error:
        raise AssertionError(render(error)) from error
    assert again == array
    assert to_yaml(again) == text
