"""The parts of the harness that need no guest: the archive, the order of modules, the framing, the kernel's view."""

from __future__ import annotations

import base64
import gzip
import json
import lzma
from pathlib import Path

import pytest

from cli.demo.linux_host import Missing, cpio
from cli.demo.linux_host.channel import Answer, FrameError, Reader, Ready, encode_script
from cli.demo.linux_host.kernel import kernels_below, unpacked_image
from cli.demo.linux_host.modules import ModuleFolder, NoSuchModuleError
from cli.demo.linux_host.nvme_view import parse_discovery, parse_snapshot


def test_an_archive_is_aligned_and_ends_with_the_trailer() -> None:
    made = cpio.archive(cpio.with_parents([cpio.regular("etc/motd", b"hello")]))
    assert len(made) % 4 == 0
    # c_namesize 4 counts the zero byte; mode 41ED is a folder with rights 755.
    assert made.startswith(b"070701" + b"00000001" + b"000041ED")
    assert made.index(b"etc\0") < made.index(b"etc/motd\0") < made.index(b"hello") < made.index(b"TRAILER!!!\0")


def test_the_first_entry_of_a_name_wins() -> None:
    entries = cpio.with_parents([cpio.regular("bin/ip", b"real"), cpio.link("bin/ip", "busybox")])
    assert [(entry.name, entry.data) for entry in entries] == [("bin", b""), ("bin/ip", b"real")]


def module(depends: str) -> bytes:
    return b"\x7fELF...\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"


@pytest.fixture
def modules(tmp_path: Path) -> ModuleFolder:
    """A folder as a package ships it: one module as it is, one packed with xz, one with gzip, one built in."""
    (tmp_path / "k").mkdir()
    (tmp_path / "k/nvme-tcp.ko").write_bytes(module("nvme-core,crc32"))
    (tmp_path / "k/nvme-core.ko.xz").write_bytes(lzma.compress(module("t10-pi")))
    (tmp_path / "k/t10-pi.ko.gz").write_bytes(gzip.compress(module("")))
    (tmp_path / "modules.order").write_text("k/nvme-tcp.ko\nk/nvme-core.ko\nk/t10-pi.ko\nk/gone.ko\n")
    (tmp_path / "modules.builtin").write_text("k/crc32.ko\n")
    return ModuleFolder.open(tmp_path)


def test_every_module_comes_after_what_it_needs_and_once(modules: ModuleFolder) -> None:
    ordered = modules.in_loading_order(["nvme-tcp", "nvme_core", "crc32"])
    assert [found.name for found in ordered] == ["t10_pi", "nvme_core", "nvme_tcp"]
    assert all(found.image.startswith(b"\x7fELF") for found in ordered)


@pytest.mark.parametrize("name", ["unknown", "gone"])
def test_a_module_that_is_not_there_is_named(modules: ModuleFolder, name: str) -> None:
    with pytest.raises(NoSuchModuleError, match=name):
        modules.in_loading_order([name])


def test_of_several_kernels_the_newest_that_has_the_modules_is_last(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    for version, listed in (("6.9.1", "k/a.ko"), ("6.12.0", "k/a.ko"), ("6.13.0", "")):
        (tmp_path / "boot" / f"vmlinuz-{version}").write_bytes(b"")
        folder = tmp_path / "lib/modules" / version
        (folder / "k").mkdir(parents=True)
        (folder / "k/a.ko").write_bytes(module(""))
        (folder / "modules.order").write_text(listed)
        (folder / "modules.builtin").write_text("")
    (tmp_path / "boot/vmlinuz-7.0.0").write_bytes(b"")  # its modules were removed
    assert [kernel.version for kernel in kernels_below(tmp_path, ("a",))] == ["6.9.1", "6.12.0"]


@pytest.mark.parametrize("image", [b"", b"\0" * 4096, b"\0" * 0x202 + b"HdrS" + b"\0" * 4096])
def test_an_image_of_another_form_is_left_to_qemu(image: bytes) -> None:
    assert unpacked_image(image) is None


def frame(number: int, status: str, out: bytes, err: bytes) -> bytes:
    return (
        f"begin {number}\n".encode()
        + base64.encodebytes(out)
        + b":err\n"
        + base64.encodebytes(err)
        + f":end {number} {status}\n".encode()
    )


@pytest.mark.parametrize("size", [1, 2, 7, 4096])
def test_messages_are_whole_however_the_bytes_are_cut(size: int) -> None:
    text = b"ready 6.1.0\n" + frame(1, "0", b"x" * 300, b"") + frame(2, "late", b"", b":end 2 0\n")
    reader = Reader()
    seen = [message for at in range(0, len(text), size) for message in reader.feed(text[at : at + size])]
    assert seen == [Ready("6.1.0"), Answer(1, 0, "x" * 300, ""), Answer(2, None, "", ":end 2 0\n")]


def test_a_line_out_of_place_is_an_error() -> None:
    with pytest.raises(FrameError):
        Reader().feed(b"[    1.5] a kernel message\n")


def test_a_script_travels_as_one_line() -> None:
    number, seconds, text = encode_script(4, 0.2, "echo 'a\nb'").decode().splitlines()[0].split(" ")
    assert (number, seconds, base64.b64decode(text)) == ("4", "1", b"echo 'a\nb'")


SNAPSHOT = """\
link:nvme-subsystem/nvme-subsys0/nvme0
link:nvme-subsystem/nvme-subsys0/nvme0n1
link:nvme-subsystem/nvme-subsys0/nvme1
nvme-subsystem/nvme-subsys0/subsysnqn:nqn.2024-01.com.example:x
nvme/nvme0/transport:tcp
nvme/nvme0/address:traddr=10.0.2.2,trsvcid=4420,src_addr=10.0.2.15
nvme/nvme0/state:live
nvme/nvme0/cntlid:1
nvme/nvme0/hostnqn:nqn.2024-01.com.example:h
nvme/nvme1/transport:tcp
nvme/nvme1/address:traddr=10.0.2.2,trsvcid=4421
nvme/nvme1/state:connecting
nvme/nvme1/cntlid:1000
nvme/nvme0/nvme0c0n1/nsid:7
nvme/nvme0/nvme0c0n1/ana_state:optimized
nvme/nvme0/nvme0c0n1/ana_grpid:1
nvme/nvme1/nvme0c1n1/nsid:7
block/nvme0n1/nsid:7
block/nvme0n1/size:2048
block/nvme0n1/uuid:00000000-0000-4000-8000-000000000001
"""


def test_the_kernels_view_joins_paths_to_their_block_device() -> None:
    (subsystem,) = parse_snapshot(SNAPSHOT)
    (namespace,) = subsystem.namespaces
    assert [controller.state for controller in subsystem.controllers] == ["live", "connecting"]
    assert (namespace.name, namespace.nsid, namespace.size_bytes) == ("nvme0n1", 7, 1024 * 1024)
    assert namespace.ana_states() == {4420: "optimized", 4421: ""}


def test_a_controller_in_the_making_is_left_out() -> None:
    text = SNAPSHOT.replace("nvme/nvme1/cntlid:1000\n", "")
    (subsystem,) = parse_snapshot(text)
    assert [controller.name for controller in subsystem.controllers] == ["nvme0"]
    assert [path.name for path in subsystem.namespaces[0].paths] == ["nvme0c0n1"]


def test_no_subsystem_and_no_discovery_record_are_empty() -> None:
    assert parse_snapshot("") == ()
    assert parse_discovery("") == ()
    assert parse_discovery(json.dumps({"genctr": 1, "records": []})) == ()


def test_what_is_missing_is_named_with_the_command_that_brings_it() -> None:
    missing = Missing(("nvme", "busybox"), ("nvme-cli", "busybox-static"))
    assert str(missing) == (
        "no virtual Linux host: nvme, busybox not found; as root: apt-get install nvme-cli busybox-static"
    )
