"""DH-HMAC-CHAP between engines, each kind as the host of each kind: what one of them calculates, the other accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from secret_lab import HOST, LOCAL, MINE, NQN, OTHER, THEIRS, Keys, connected, secret

from dataplane.embedded.initiator.authentication import NO_CREDENTIALS
from dataplane.embedded.initiator.options import DHGROUP_NAMES, DIGEST_NAMES
from dataplane.launch import EngineKind, find_spdk
from dataplane.nvme.dhchap import Digest
from dataplane.nvme.ffdhe import DhGroup
from dataplane.rpc.methods import keyring, nvme, nvmf

Start = Callable[[EngineKind], tuple[Any, Any]]
EXPORT = f"{NQN}:exported"
ACCESS, INVALID, NO_DEVICE, NO_KEY, IO = -13, -22, -19, -126, -5


@pytest.fixture(scope="module")
def pool(start_pair: Start) -> Iterator[Callable[[EngineKind, int], Any]]:
    """Two engines of each kind, started when first asked for."""
    started: dict[EngineKind, tuple[Any, Any]] = {}

    def get(kind: EngineKind, index: int) -> Any:
        if kind not in started:
            started[kind] = start_pair(kind)
        return started[kind][index]

    yield get
    for pair in started.values():
        for each in pair:
            each.stop()


@pytest.fixture(
    params=[
        ("embedded", "embedded"),
        pytest.param(("embedded", "spdk"), marks=pytest.mark.spdk),
        pytest.param(("spdk", "embedded"), marks=pytest.mark.spdk),
        pytest.param(("spdk", "spdk"), marks=pytest.mark.spdk),
    ],
    ids=lambda pair: f"{pair[1]} host of {pair[0]} target",
)
def both(request: pytest.FixtureRequest, pool: Callable[[EngineKind, int], Any]) -> Iterator[tuple[Any, Any]]:
    """A target and a host."""
    target_kind, host_kind = request.param
    if "spdk" in request.param and find_spdk() is None:
        pytest.skip("SPDK's nvmf_tgt not found: set WS7000_SPDK_PREFIX")
    target, host = pool(target_kind, 0), pool(host_kind, 1)
    yield target, host
    host.sweep()
    target.sweep()
    everything = {"dhchap_digests": [*DIGEST_NAMES], "dhchap_dhgroups": [*DHGROUP_NAMES]}
    host.rpc("bdev_nvme_set_options", **everything)


class Pair:
    """A target with a guarded volume, and a host that has all keys in its keyring."""

    def __init__(self, target: Any, host: Any, folder: Path) -> None:
        self.target, self.host = target, host
        self.exported = 0
        self.keys = [Keys(folder / name) for name in ("target", "host")]
        for each in self.keys:
            each.folder.mkdir()
        for name, value in (("mine", MINE), ("theirs", THEIRS), ("other", OTHER)):
            self.add(name, value)
        target.malloc("m0")
        self.port = target.serve(NQN, "m0", allow_any_host=False)
        target.run(nvmf.add_host(NQN, HOST, dhchap_key="mine", dhchap_ctrlr_key="theirs"))

    def add(self, name: str, value: Any) -> None:
        for engine, keys in zip((self.target, self.host), self.keys, strict=True):
            keys.add(engine, name, value)

    def call(self, **keys: str) -> Any:
        return nvme.attach_controller_tcp(
            "c", address=LOCAL, port=self.port, subnqn=NQN, hostnqn=HOST, ctrlr_loss_timeout_s=-1,
            reconnect_delay_s=1, io_queues=1, **keys,
        )  # fmt: skip

    def attach(self, **keys: str) -> None:
        """Attach, and serve what was attached, so that the host's engine keeps an I/O queue."""
        assert self.host.run(self.call(**keys)) == ("cn1",)
        self.exported = self.host.serve(EXPORT, "cn1")
        self.use()

    def detach(self) -> None:
        self.host.run(nvmf.delete_subsystem(EXPORT))
        self.host.run(nvme.detach_controller("c"))

    def use(self) -> None:
        """Write and read back through the host's engine."""
        connected(self.exported, NO_CREDENTIALS, subnqn=EXPORT)

    def refused(self, **keys: str) -> int:
        number = int(self.host.refused(self.call(**keys)).number)
        assert self.host.run(nvme.get_controllers()) == ()
        return number

    def shown(self) -> list[dict[str, str]]:
        """What the target says of its queues."""
        return [queue["auth"] for queue in self.target.rpc("nvmf_subsystem_get_qpairs", nqn=NQN)]

    def set_keys(self, **keys: str) -> Any:
        return self.host.rpc("bdev_nvme_set_keys", name="c", **keys)


@pytest.fixture
def pair(both: tuple[Any, Any], tmp_path: Path) -> Iterator[Pair]:
    made = Pair(*both, tmp_path)
    yield made
    if made.host.run(nvme.get_controllers()):
        made.detach()
    made.target.run(nvmf.delete_subsystem(NQN))
    for engine in both:
        for key in engine.run(keyring.get_keys()):
            if not key.removed:
                engine.run(keyring.file_remove_key(key.name))


@pytest.mark.parametrize(
    ("digest", "group"),
    [
        *((digest, DhGroup.NULL) for digest in Digest),
        *((Digest.SHA256, group) for group in DhGroup if group is not DhGroup.NULL),
        (Digest.SHA384, DhGroup.FFDHE2048),
        (Digest.SHA512, DhGroup.FFDHE2048),
    ],
)
def test_both_directions(pair: Pair, digest: Digest, group: DhGroup) -> None:
    pair.host.rpc("bdev_nvme_set_options", dhchap_digests=[digest.label], dhchap_dhgroups=[group.label])
    pair.attach(dhchap_key="mine", dhchap_ctrlr_key="theirs")
    shown = pair.shown()
    assert len(shown) == 2
    assert all(one == {"state": "completed", "digest": digest.label, "dhgroup": group.label} for one in shown)


@pytest.mark.parametrize("transform", [None, *Digest])
def test_every_transformation(pair: Pair, transform: Digest | None) -> None:
    for name, size in (("h", 48), ("c", 64)):
        pair.add(name, secret(name, transform, size))
    pair.target.rpc("nvmf_subsystem_set_keys", nqn=NQN, host=HOST, dhchap_key="h", dhchap_ctrlr_key="c")
    pair.attach(dhchap_key="h", dhchap_ctrlr_key="c")


def test_only_the_host(pair: Pair) -> None:
    pair.attach(dhchap_key="mine")
    assert {one["digest"] for one in pair.shown()} == {"sha512"}
    assert {one["dhgroup"] for one in pair.shown()} == {"ffdhe8192"}


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ({"dhchap_key": "other"}, IO),
        ({"dhchap_key": "mine", "dhchap_ctrlr_key": "other"}, IO),
        ({}, IO),
        ({"dhchap_ctrlr_key": "theirs"}, IO),
        ({"dhchap_key": "none"}, NO_KEY),
        ({"dhchap_key": "mine", "dhchap_ctrlr_key": "none"}, NO_KEY),
    ],
    ids=["wrong", "wrong controller", "no key", "controller only", "no such key", "no such controller key"],
)
def test_an_attach_that_is_refused(pair: Pair, given: dict[str, str], number: int) -> None:
    assert pair.refused(**given) == number
    pair.attach(dhchap_key="mine", dhchap_ctrlr_key="theirs")


def test_keys_change_while_connected(pair: Pair) -> None:
    pair.attach(dhchap_key="mine", dhchap_ctrlr_key="theirs")
    pair.target.rpc("nvmf_subsystem_set_keys", nqn=NQN, host=HOST, dhchap_key="other", dhchap_ctrlr_key="mine")
    pair.use()
    assert pair.set_keys(dhchap_key="other", dhchap_ctrlr_key="mine") is True
    pair.use()
    pair.detach()
    assert pair.refused(dhchap_key="mine") == IO
    pair.attach(dhchap_key="other", dhchap_ctrlr_key="mine")


def test_changes_that_are_refused(pair: Pair) -> None:
    pair.attach(dhchap_key="mine")
    number = pair.host.number
    assert number("bdev_nvme_set_keys", name="none", dhchap_key="mine") == NO_DEVICE
    assert number("bdev_nvme_set_keys", name="c", dhchap_key="none") == NO_KEY
    assert number("bdev_nvme_set_keys", name="c", dhchap_ctrlr_key="theirs") == INVALID
    assert number("bdev_nvme_set_keys", name="c", key="mine") == -32602
    assert pair.set_keys(dhchap_key="mine") is True
    assert number("bdev_nvme_set_keys", name="c", dhchap_key="other") == ACCESS


def test_the_configuration_names_keys_and_holds_no_secret(pair: Pair) -> None:
    pair.attach(dhchap_key="mine", dhchap_ctrlr_key="theirs")
    config = pair.host.rpc("framework_get_config", name="bdev")
    call = next(each["params"] for each in config if each["method"] == "bdev_nvme_attach_controller")
    assert (call["dhchap_key"], call["dhchap_ctrlr_key"]) == ("mine", "theirs")
    assert "DHHC" not in str(config) + str(pair.host.rpc("bdev_nvme_get_controllers"))
    held = {key["name"]: key["refcnt"] for key in pair.host.rpc("keyring_get_keys")}
    pair.target.rpc("nvmf_subsystem_set_keys", nqn=NQN, host=HOST, dhchap_key="other")
    assert pair.set_keys(dhchap_key="other") is True
    config = pair.host.rpc("framework_get_config", name="bdev")
    call = next(each["params"] for each in config if each["method"] == "bdev_nvme_attach_controller")
    named = [call.get("dhchap_key"), call.get("dhchap_ctrlr_key")]
    # SPDK goes on naming the keys of the attach.
    assert named == (["other", None] if pair.host.kind == "embedded" else ["mine", "theirs"])
    pair.detach()
    freed = {key["name"]: key["refcnt"] for key in pair.host.rpc("keyring_get_keys")}
    assert held["mine"] > held["other"]
    assert set(freed.values()) == {1}
