"""A real Linux kernel connects to two nodes: multipath, data, file system, switchover, rights, discovery."""

from __future__ import annotations

from typing import Any

import pytest

from cli.demo.linux_host import GuestError, GuestLate, LinuxHost, Namespace

pytestmark = [pytest.mark.vm, pytest.mark.timeout(240)]

MIB = 1024**2


# The harness itself.


def test_a_command_gives_its_status_and_both_outputs(linux: LinuxHost) -> None:
    result = linux.run("printf 'one\\ntwo'; printf '\\303\\251:end 1 0' >&2; exit 7")
    assert (result.rc, result.out, result.err) == (7, "one\ntwo", "é:end 1 0")


def test_a_failed_command_is_an_error_that_shows_what_it_said(linux: LinuxHost) -> None:
    with pytest.raises(GuestError) as caught:
        linux.check("echo reason >&2; exit 3")
    assert caught.value.code == "HOST-003"
    assert caught.value.why == "reason"
    assert caught.value.details["status"] == 3


def test_a_late_command_is_killed_and_the_next_one_runs(linux: LinuxHost) -> None:
    with pytest.raises(GuestLate):
        linux.run("sleep 600", timeout_s=1)
    assert linux.check("echo next") == "next\n"


def test_output_that_is_longer_than_any_buffer_arrives_whole(linux: LinuxHost) -> None:
    assert linux.check("seq 1 50000").split() == [str(number) for number in range(1, 50001)]


def test_the_kernel_has_native_multipath(linux: LinuxHost) -> None:
    assert linux.check("cat /sys/module/nvme_core/parameters/multipath") == "Y\n"


# Against two nodes, once for each engine.


def test_two_paths_make_one_block_device(linux: LinuxHost, nodes: Any, volume: Namespace) -> None:
    assert linux.block_devices() == (volume.name,)
    assert volume.size_bytes == 512 * MIB
    assert volume.uuid == "00000000-0000-4000-8000-000000000001"
    assert {path.ana_group for path in volume.paths} == {1}
    first, second = sorted(path.controller.cntlid for path in volume.paths)
    assert first < 1000 <= second


def test_written_data_reads_back(linux: LinuxHost, volume: Namespace) -> None:
    linux.check("dd if=/dev/urandom of=/tmp/data bs=64k count=64 2>/dev/null")
    linux.check(f"dd if=/tmp/data of={volume.device} bs=64k seek=100 oflag=direct conv=fsync 2>/dev/null")
    linux.check("echo 3 >/proc/sys/vm/drop_caches")
    sums = linux.check(
        f"md5sum </tmp/data; dd if={volume.device} bs=64k skip=100 count=64 iflag=direct 2>/dev/null | md5sum"
    )
    written, read = sums.splitlines()
    assert written == read


# Writes and syncs for ever: 4 KiB at a time, through the file system, each counted once it is safe.
WRITER = """
rm -f /tmp/stop /tmp/writer /tmp/count
(
    count=0
    while [ ! -e /tmp/stop ]; do
        dd if=/tmp/block of=/mnt/stream bs=4k seek=$((count % 256)) count=1 conv=notrunc,fsync 2>/tmp/dd || break
        count=$((count + 1))
        echo $count >/tmp/count.new && mv /tmp/count.new /tmp/count
    done
    [ -e /tmp/stop ] && echo well >/tmp/end || cp /tmp/dd /tmp/end
    mv /tmp/end /tmp/writer
) >/dev/null 2>&1 &
"""


def test_a_file_system_lives_through_an_ana_switchover(linux: LinuxHost, nodes: Any, volume: Namespace) -> None:
    linux.check(f"mkfs.ext4 -q -F {volume.device} && mount {volume.device} /mnt")
    linux.check(
        "mkdir /mnt/files && dd if=/dev/urandom of=/tmp/block bs=4k count=1 2>/dev/null && "
        "for n in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=/mnt/files/$n bs=64k count=$n 2>/dev/null; done; sync"
    )
    sums = linux.check("cd /mnt/files && md5sum *")

    def written_after(count: int) -> int | None:
        now = int(linux.run("cat /tmp/count 2>/dev/null || echo 0").out.strip() or 0)
        return now if now > count else None

    linux.check(WRITER)
    before = linux.wait_until("the first synced writes", lambda: written_after(3))
    on_b = nodes.b.writes()
    nodes.switch_over()
    linux.namespace(nodes.nqn, 1, paths=2, ana_states={nodes.a.port: "inaccessible", nodes.b.port: "optimized"})
    linux.wait_until("synced writes after the switchover", lambda: written_after(before + 5))
    assert nodes.b.writes() > on_b
    on_a = nodes.a.writes()
    linux.check("touch /tmp/stop")
    end = linux.wait_until("the writer's end", lambda: linux.run("cat /tmp/writer 2>/dev/null").out)
    assert end == "well\n"

    linux.check("sync && umount /mnt")
    linux.check(f"e2fsck -f -n {volume.device}")
    linux.check(f"echo 3 >/proc/sys/vm/drop_caches; mount {volume.device} /mnt")
    assert linux.check("cd /mnt/files && md5sum *") == sums
    assert linux.run("cmp -n 4096 /mnt/stream /tmp/block").rc == 0
    assert nodes.a.writes() == on_a


def test_a_namespace_that_is_not_for_a_host_is_not_shown_to_it(linux: LinuxHost, nodes: Any, hosts: Any) -> None:
    seen: dict[str, list[int]] = {}
    for host, last in ((hosts.first, 1), (hosts.second, 2)):
        linux.connect(nodes.path(nodes.a, host))
        linux.namespace(nodes.nqn, last)
        subsystem = linux.subsystem(nodes.nqn)
        assert subsystem is not None
        seen[host.nqn] = [namespace.nsid for namespace in subsystem.namespaces]
        linux.disconnect(nodes.nqn)
    assert seen == {hosts.first.nqn: [1], hosts.second.nqn: [1, 2]}


def test_a_host_without_rights_is_refused(linux: LinuxHost, nodes: Any, hosts: Any) -> None:
    with pytest.raises(GuestError) as caught:
        linux.connect(nodes.path(nodes.a, hosts.stranger))
    assert caught.value.code == "HOST-003"
    assert linux.subsystem(nodes.nqn) is None
    # The kernel's words for Connect Invalid Host (NVMe over Fabrics, status 184h).
    assert "is not allowed" in caught.value.why


def test_discovery_on_each_node_lists_its_own_path(linux: LinuxHost, nodes: Any, hosts: Any) -> None:
    found = {
        (record.nqn, record.port)
        for node in (nodes.a, nodes.b)
        for record in linux.discover(node.port, hosts.first.nqn, hosts.first.uuid)
    }
    assert {(nodes.nqn, nodes.a.port), (nodes.nqn, nodes.b.port)} <= found


def test_discovery_hides_a_subsystem_from_a_host_without_rights(linux: LinuxHost, nodes: Any, hosts: Any) -> None:
    records = linux.discover(nodes.a.port, hosts.stranger.nqn, hosts.stranger.uuid)
    assert nodes.nqn not in {record.nqn for record in records}
