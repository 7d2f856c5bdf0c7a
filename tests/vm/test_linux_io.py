"""Data through a real Linux kernel: every block verified, on the raw device and through ext4 and XFS."""

from __future__ import annotations

from typing import Any

import fio
import pytest
from fio import Job
from kernel_log import LOSS, watched
from relay import Relay

from cli.demo.linux_host import Connect, LinuxHost, Namespace

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300), pytest.mark.usefixtures("workloads")]

MIB = 1 << 20
JOBS = {
    "sequential-128k": Job(rw="write", bs="128k", size_mib=32, depth=8),
    "sequential-1m": Job(rw="write", bs="1m", size_mib=32, depth=4, offset_mib=7),  # the host cuts it at MDTS
    "random-4k": Job(rw="randwrite", size_mib=4, depth=32),
    "random-512": Job(rw="randwrite", bs="512", size_mib=1, depth=32),
    "random-mixed-sizes": Job(rw="randwrite", bs="16k", size_mib=16, more=("--bsrange=512-256k",)),
    "reads-between-writes": Job(rw="randrw", bs="16k", size_mib=8, more=("--verify_backlog=16",)),
    "fsync": Job(rw="randwrite", bs="8k", size_mib=2, more=("--fsync=8",)),
    "fdatasync": Job(rw="write", bs="16k", size_mib=2, more=("--fdatasync=4",)),
    "every-write-through-the-cache": Job(rw="randwrite", bs="16k", size_mib=2, more=("--sync=dsync",)),
}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_what_fio_wrote_to_the_device_verifies(linux: LinuxHost, volume: Namespace, job: Job) -> None:
    with watched(linux):
        fio.verified(linux, job, volume.device)


def test_what_fio_trims_and_writes_again_verifies(linux: LinuxHost, volume: Namespace) -> None:
    with watched(linux):
        report = fio.verified(linux, Job(rw="trimwrite", bs="64k", size_mib=8), volume.device)
    assert report["trim"]["io_bytes"] > 0


def test_a_whole_device_that_is_discarded_reads_zeroes(linux: LinuxHost, volume: Namespace) -> None:
    device = volume.device
    with watched(linux):
        linux.check(f"dd if=/dev/urandom of={device} bs=1M seek=100 count=8 oflag=direct 2>/dev/null")
        linux.check(f"blkdiscard -o {100 * MIB} -l {8 * MIB} {device}")
        read = f"dd if={device} bs=1M skip=100 count=8 iflag=direct 2>/dev/null"
        assert linux.check(f"{read} | cmp -n {8 * MIB} - /dev/zero && echo zeroes") == "zeroes\n"


FILE_SYSTEMS = {
    "ext4": ("mkfs.ext4 -q -F {0}", "e2fsck -f -n {0}"),
    "xfs": ("mkfs.xfs -q -f {0}", "xfs_repair -n {0}"),
}


@pytest.mark.parametrize(("make", "check"), FILE_SYSTEMS.values(), ids=FILE_SYSTEMS)
def test_a_file_system_holds_what_was_written(linux: LinuxHost, volume: Namespace, make: str, check: str) -> None:
    device = volume.device
    random = Job(rw="randwrite", bs="4k", size_mib=4, more=("--fsync=32",))
    large = Job(rw="write", bs="256k", size_mib=16, depth=4, more=("--end_fsync=1",))
    with watched(linux):
        linux.check(f"{make.format(device)} && mount {device} /mnt && mkdir /mnt/files")
        for number in range(1, 9):
            linux.check(f"dd if=/dev/urandom of=/mnt/files/{number} bs=37k count={number} 2>/dev/null")
        sums = linux.check("cd /mnt/files && md5sum *")
        fio.verified(linux, random, "/mnt/random")
        fio.verified(linux, large, "/mnt/large")
        linux.check("rm /mnt/files/3 && fstrim /mnt && sync && umount /mnt")
        linux.check(check.format(device))
        linux.check(f"echo 3 >/proc/sys/vm/drop_caches; mount {device} /mnt")
        kept = [line for line in sums.splitlines() if not line.endswith(" 3")]
        assert linux.check("cd /mnt/files && md5sum *").splitlines() == kept
        for job, file in ((random, "/mnt/random"), (large, "/mnt/large")):
            # --verify_only reads what another run wrote, and knows from the options what must be there.
            assert fio.run(linux, job, file, "--verify_only")["read"]["io_bytes"] == job.size_mib * MIB
        linux.check("umount /mnt")
        linux.check(check.format(device))


def digests(nodes: Any, host: Any, port: int) -> Connect:
    return Connect(nqn=nodes.nqn, port=port, hostnqn=host.nqn, hostid=host.uuid, digests=True)


def test_data_with_header_and_data_digests_verifies(linux: LinuxHost, nodes: Any, hosts: Any) -> None:
    with watched(linux):
        linux.connect(digests(nodes, hosts.first, nodes.a.port))
        device = linux.namespace(nodes.nqn, 1).device
        fio.verified(linux, Job(rw="randwrite", bs="16k", size_mib=8, more=("--bsrange=512-128k",)), device)
        fio.verified(linux, Job(rw="randrw", bs="4k", size_mib=2, more=("--verify_backlog=8",)), device)
        linux.disconnect(nodes.nqn)


@pytest.mark.parametrize("towards", ["host", "engine"])
def test_a_flipped_bit_is_found_by_the_digest_and_repaired(
    linux: LinuxHost, nodes: Any, hosts: Any, towards: str
) -> None:
    """Found by the kernel on its way to the host, by the engine on its way there; either way the host tries again."""
    said = (
        r"nvme nvme\d+: data digest error: .*",
        r"nvme nvme\d+: queue \d+: header digest error: .*",
        r"nvme nvme\d+: receive failed:  -5",
    )
    with Relay(nodes.a.port) as relay, watched(linux, *said, *LOSS):
        linux.connect(digests(nodes, hosts.first, relay.port))
        device = linux.namespace(nodes.nqn, 1).device
        for _ in range(3):
            relay.spoil(towards)
        fio.verified(linux, Job(rw="write", bs="128k", size_mib=8, depth=2), device)
        assert relay.left_to_spoil(towards) == 0
        linux.disconnect(nodes.nqn)
