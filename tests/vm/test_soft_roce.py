"""NVMe over RoCEv2 inside one guest: the kernel's nvme-rdma against SPDK's RDMA transport, over soft-RoCE.

No RDMA hardware takes part: rdma_rxe makes a RoCE device of the guest's network card.  SPDK polls on the second
processor, so that the first is free for the kernel.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.demo.linux_host import GUEST_ADDRESS, Connect, LinuxHost, Missing, Pieces, Shape, find_pieces

pytestmark = [pytest.mark.vm, pytest.mark.spdk, pytest.mark.timeout(300)]

NQN = "nqn.2024-01.com.example:ws7000:roce"
PORT = 4420
# crc32_generic stands first: rdma_rxe asks for a "crc32" cipher by name and does not say so in its dependencies.
MODULES = ("crc32_generic", "ib_uverbs", "rdma_ucm", "rdma_rxe", "nvme_rdma")
PROVIDERS = "/usr/lib*/**/libibverbs/librxe-*.so"
DRIVER = Path("/etc/libibverbs.d/rxe.driver")


def configuration() -> dict[str, Any]:
    """SPDK's start-up file: small pools, because every buffer is pinned in a small guest."""
    buffers = {"small_pool_count": 512, "large_pool_count": 64, "small_bufsize": 8192, "large_bufsize": 135168}
    transport = {
        "trtype": "RDMA", "max_queue_depth": 32, "max_io_qpairs_per_ctrlr": 2, "io_unit_size": 8192,
        "num_shared_buffers": 64, "buf_cache_size": 16, "no_srq": True,
    }  # fmt: skip
    address = {"trtype": "RDMA", "adrfam": "IPv4", "traddr": GUEST_ADDRESS, "trsvcid": str(PORT)}
    subsystem = {"nqn": NQN, "allow_any_host": True, "serial_number": "ROCE", "max_namespaces": 1}
    namespace = {"nsid": 1, "bdev_name": "memory"}
    calls = {
        "iobuf": [("iobuf_set_options", buffers)],
        "bdev": [("bdev_malloc_create", {"name": "memory", "num_blocks": 32768, "block_size": 512})],
        "nvmf": [
            ("nvmf_create_transport", transport),
            ("nvmf_create_subsystem", subsystem),
            ("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": namespace}),
            ("nvmf_subsystem_add_listener", {"nqn": NQN, "listen_address": address}),
        ],
    }
    return {
        "subsystems": [
            {"subsystem": name, "config": [{"method": method, "params": params} for method, params in listed]}
            for name, listed in calls.items()
        ]
    }


@pytest.fixture
def roce(spdk: Path, pieces: Pieces) -> Iterator[LinuxHost]:
    """A guest with a soft-RoCE device and SPDK's program, not yet started."""
    provider = next(Path("/").glob(PROVIDERS.lstrip("/")), None)
    if provider is None or not DRIVER.is_file():
        pytest.skip("libibverbs' soft-RoCE provider not found: apt-get install ibverbs-providers")
    wanted = find_pieces(("rdma",), modules=MODULES)
    if isinstance(wanted, Missing):
        pytest.skip(str(wanted))
    shape = Shape(memory_mib=1024, cpus=2, modules=MODULES, files=(spdk, provider, DRIVER))
    with LinuxHost(wanted, shape) as host:
        host.check("rdma link add rxe0 type rxe netdev eth0")
        yield host


def test_the_kernel_reads_over_rocev2_what_it_wrote(roce: LinuxHost, spdk: Path, hosts: Any) -> None:
    roce.check(f"cat >/run/nvmf.json <<'END'\n{json.dumps(configuration())}\nEND")
    # SPDK's environment fails to start where openssl's configuration is not there.
    roce.check(
        f"OPENSSL_CONF=/dev/null {spdk} --no-pci --no-huge -s 512 -m 0x2 --json /run/nvmf.json "
        ">/run/nvmf.log 2>&1 & echo $! >/run/nvmf.pid"
    )

    def listening() -> bool:
        alive = roce.run("kill -0 $(cat /run/nvmf.pid)").rc == 0
        log = roce.check("cat /run/nvmf.log")
        assert alive, log
        return "NVMe/RDMA Target Listening" in log

    roce.wait_until("SPDK's RDMA listener", listening)
    host = hosts.first
    path = Connect(nqn=NQN, port=PORT, address=GUEST_ADDRESS, transport="rdma", hostnqn=host.nqn, hostid=host.uuid)
    roce.connect(path)
    namespace = roce.namespace(NQN, 1)
    assert namespace.paths[0].controller.transport == "rdma"

    roce.check("dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null")
    roce.check(f"dd if=/tmp/data of={namespace.device} bs=128k oflag=direct 2>/dev/null")
    roce.check(f"dd if={namespace.device} of=/tmp/back bs=128k count=32 iflag=direct 2>/dev/null")
    assert roce.run("cmp /tmp/data /tmp/back").rc == 0
    sent = roce.check("cat /sys/class/infiniband/rxe0/ports/1/hw_counters/sent_pkts")
    assert int(sent) > 8 * 1024  # 4 MiB there and back, in packets of 1024 bytes

    roce.disconnect(NQN)
    assert roce.subsystem(NQN) is None
