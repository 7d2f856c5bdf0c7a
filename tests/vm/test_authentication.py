"""A real Linux kernel proves who it is with DH-HMAC-CHAP, asks the same of the controller, and is refused otherwise.

The secrets are made by nvme-cli in the guest, so their text is not for our own code to agree on with itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.demo.linux_host import GuestError, LinuxHost, Pieces

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

NQN = "nqn.2024-01.com.example:ws7000:guarded"
# The kernel calls it NVME_AUTH up to 6.6 and NVME_HOST_AUTH from 6.7 on, where NVME_AUTH is only a library.
_ABLE = re.compile(r"^CONFIG_NVME_HOST_AUTH=y$|^CONFIG_NVME_AUTH=y$", re.MULTILINE)
SLOW_S = 300  # the largest group takes an emulated processor many seconds


@pytest.fixture(scope="session")
def able(pieces: Pieces) -> None:
    """The kernel was built with in-band authentication."""
    config = pieces.kernel.image.with_name(f"config-{pieces.kernel.version}")
    if not config.is_file() or not _ABLE.search(config.read_text()):
        pytest.skip(f"Linux {pieces.kernel.version} is built without in-band authentication (CONFIG_NVME_HOST_AUTH)")


class Guarded:
    """A subsystem of node a for the first host, that must authenticate."""

    def __init__(self, linux: LinuxHost, nodes: Any, host: Any, folder: Path) -> None:
        self.linux, self.node, self.host, self.folder = linux, nodes.a, host, folder
        self.path = replace(nodes.path(nodes.a, host), nqn=NQN, keep_alive_s=120)
        self.keys: list[str] = []

    def secret(self, hmac: int = 0, size: int = 32) -> str:
        """A secret by nvme-cli."""
        command = f"nvme gen-dhchap-key --hmac={hmac} --key-length={size} --nqn={self.host.nqn}"
        return self.linux.check(command).strip()

    def export(self, **secrets: str) -> None:
        for name, value in secrets.items():
            file = self.folder / f"{name}{len(self.keys)}"
            file.touch(mode=0o600)
            file.write_text(value + "\n")
            self.node.call("keyring_file_add_key", name=file.name, path=str(file))
            self.keys.append(file.name)
        given = dict(zip(secrets, self.keys[-len(secrets) :], strict=True))
        self.node.call("nvmf_subsystem_set_keys", nqn=NQN, host=self.host.nqn, **given)

    def connect(self, secret: str = "", controller_secret: str = "") -> None:
        command = self.path.command()
        if secret:
            command += f" --dhchap-secret={secret}"
        if controller_secret:
            command += f" --dhchap-ctrl-secret={controller_secret}"
        self.linux.run(command, timeout_s=SLOW_S).check()

    def queues(self) -> list[dict[str, str]]:
        return [queue["auth"] for queue in self.node.call("nvmf_subsystem_get_qpairs", nqn=NQN)]


@pytest.fixture
def guarded(able: None, linux: LinuxHost, nodes: Any, hosts: Any, tmp_path: Path) -> Iterator[Guarded]:
    made = Guarded(linux, nodes, hosts.first, tmp_path)
    call = made.node.call
    call("bdev_malloc_create", name="guarded", num_blocks=32768, block_size=512)
    call("nvmf_create_subsystem", nqn=NQN, serial_number="WS7000AUTH", model_number="WS7000", max_namespaces=1)
    call("nvmf_subsystem_add_ns", nqn=NQN, namespace={"nsid": 1, "bdev_name": "guarded"})
    call("nvmf_subsystem_add_host", nqn=NQN, host=made.host.nqn)
    call("nvmf_subsystem_add_listener", nqn=NQN, listen_address=made.node.listen_address())
    yield made
    linux.disconnect(NQN)
    call("nvmf_delete_subsystem", nqn=NQN)
    call("bdev_malloc_delete", name="guarded")
    for name in made.keys:
        call("keyring_file_remove_key", name=name)


@pytest.mark.parametrize(("hmac", "size"), [(0, 32), (1, 32), (2, 48), (3, 64)])
def test_a_host_with_its_secret_writes_and_reads(guarded: Guarded, hmac: int, size: int) -> None:
    secret = guarded.secret(hmac, size)
    guarded.export(dhchap_key=secret)
    guarded.connect(secret)
    namespace = guarded.linux.namespace(NQN, 1)
    guarded.linux.check("dd if=/dev/urandom of=/tmp/data bs=64k count=8 2>/dev/null")
    guarded.linux.check(f"dd if=/tmp/data of={namespace.device} bs=64k oflag=direct conv=fsync 2>/dev/null")
    sums = guarded.linux.check(
        f"md5sum </tmp/data; dd if={namespace.device} bs=64k count=8 iflag=direct 2>/dev/null | md5sum"
    ).splitlines()
    assert sums[0] == sums[1]
    shown = guarded.queues()
    assert len(shown) == 2
    assert {one["state"] for one in shown} == {"completed"}


def test_host_and_controller_prove_it_to_each_other(guarded: Guarded) -> None:
    secret, controller = guarded.secret(1), guarded.secret(2, 48)
    guarded.export(dhchap_key=secret, dhchap_ctrlr_key=controller)
    guarded.connect(secret, controller)
    assert guarded.linux.namespace(NQN, 1).size_bytes == 16 << 20


def test_who_does_not_know_the_secret_is_refused(guarded: Guarded) -> None:
    secret, controller, wrong = guarded.secret(), guarded.secret(), guarded.secret()
    guarded.export(dhchap_key=secret, dhchap_ctrlr_key=controller)
    for given in ((), (wrong,), (secret, wrong)):
        with pytest.raises(GuestError):
            guarded.connect(*given)
        assert guarded.linux.subsystem(NQN) is None
    guarded.connect(secret, controller)
