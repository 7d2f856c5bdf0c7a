"""DH-HMAC-CHAP: who proves what to whom, who is refused, and how keys change.  The host is our own initiator."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from secret_lab import HOST, MINE, NQN, OTHER, QUICK, THEIRS, Keys, connected, known, options, secret, use

from dataplane.embedded.initiator.association import Association, open_association
from dataplane.embedded.initiator.authentication import NO_CREDENTIALS, Credentials, NotAuthenticated
from dataplane.embedded.initiator.connection import TransportLost
from dataplane.nvme.dhchap import Digest
from dataplane.nvme.ffdhe import DhGroup
from dataplane.nvme.status import NvmeError, Status
from dataplane.rpc.methods import framework, keyring, nvmf

# What works


@pytest.mark.parametrize("digest", Digest)
@pytest.mark.parametrize("group", [DhGroup.NULL, DhGroup.FFDHE2048, DhGroup.FFDHE3072])
def test_both_sides_agree_with_every_hash_function(engine: Any, guarded: int, digest: Digest, group: DhGroup) -> None:
    shown = []

    async def look(association: Association) -> None:
        await use(association)
        shown.extend(await asyncio.to_thread(engine.rpc, "nvmf_subsystem_get_qpairs", nqn=NQN))

    connected(guarded, known(MINE, THEIRS, (digest,), (group,)), look)
    assert len(shown) == 2
    for queue in shown:
        assert queue["state"] == "enabled"
        assert queue["auth"] == {"state": "completed", "digest": digest.label, "dhgroup": group.label}


@pytest.mark.parametrize("group", [DhGroup.FFDHE4096, DhGroup.FFDHE6144, DhGroup.FFDHE8192])
def test_the_large_groups(engine: Any, guarded: int, group: DhGroup) -> None:
    connected(guarded, known(MINE, THEIRS, groups=(group,)))


@pytest.mark.parametrize("transform", [None, *Digest])
@pytest.mark.parametrize("size", [32, 48, 64])
def test_every_kind_of_secret(engine: Any, guarded: int, keys: Keys, transform: Digest | None, size: int) -> None:
    mine, theirs = secret("mine", transform, size), secret("theirs", transform, size)
    engine.rpc(
        "nvmf_subsystem_set_keys", nqn=NQN, host=HOST,
        dhchap_key=keys.add(engine, "k", mine), dhchap_ctrlr_key=keys.add(engine, "c", theirs),
    )  # fmt: skip
    connected(guarded, known(mine, theirs))


def test_the_strongest_that_both_offer_is_chosen(engine: Any, guarded: int) -> None:
    async def look(association: Association) -> None:
        queue = (await asyncio.to_thread(engine.rpc, "nvmf_subsystem_get_qpairs", nqn=NQN))[0]
        assert queue["auth"] == {"state": "completed", "digest": "sha384", "dhgroup": "ffdhe2048"}

    connected(guarded, known(digests=(Digest.SHA256, Digest.SHA384), groups=(DhGroup.NULL, DhGroup.FFDHE2048)), look)


def test_a_host_that_does_not_ask_the_controller_is_not_told(engine: Any, guarded: int) -> None:
    connected(guarded, known(MINE))


def test_a_host_without_a_key_in_the_target_needs_none(engine: Any, guarded: int) -> None:
    engine.rpc("nvmf_subsystem_set_keys", nqn=NQN, host=HOST)
    connected(guarded, known(None))
    connected(guarded, known(MINE))


# Who is refused


@pytest.mark.parametrize(
    "credentials",
    [known(OTHER), known(MINE, OTHER), known(replace(MINE, transform=Digest.SHA256))],
    ids=["another secret", "another secret of the controller", "another transformation"],
)
def test_a_wrong_secret_is_refused(engine: Any, guarded: int, credentials: Credentials) -> None:
    with pytest.raises(NotAuthenticated):
        connected(guarded, credentials)


def test_a_host_without_a_secret_is_refused(engine: Any, guarded: int) -> None:
    with pytest.raises(NvmeError) as caught:
        connected(guarded, NO_CREDENTIALS)
    assert caught.value.code == Status.AUTHENTICATION_REQUIRED


def test_a_controller_without_a_key_cannot_be_asked(engine: Any, guarded: int) -> None:
    engine.rpc("nvmf_subsystem_set_keys", nqn=NQN, host=HOST, dhchap_key="host-key")
    connected(guarded, known(MINE))
    with pytest.raises(NotAuthenticated, match="refuses the host: failed"):
        connected(guarded, known(MINE, THEIRS))


def test_a_key_that_is_gone_lets_nobody_in(engine: Any, guarded: int, keys: Keys) -> None:
    """The file is read when it is used; a key that was taken out of the keyring is read no more."""
    path = keys.write("host-key", OTHER)
    connected(guarded, known(OTHER))
    path.chmod(0o640)
    with pytest.raises(NotAuthenticated):
        connected(guarded, known(OTHER))
    path.chmod(0o600)
    path.write_text("DHHC-1:00:nonsense:")
    with pytest.raises(NotAuthenticated):
        connected(guarded, known(OTHER))
    path.write_text(MINE.text() + "\n")
    connected(guarded, known(MINE))
    engine.run(keyring.file_remove_key("host-key"))
    with pytest.raises(NotAuthenticated):
        connected(guarded, known(MINE))
    assert {key.name: key.removed for key in engine.run(keyring.get_keys())} == {
        "controller-key": False,
        "host-key": True,
    }


# Keys change


def test_who_is_connected_stays_when_keys_change(engine: Any, guarded: int, keys: Keys) -> None:
    async def story(association: Association) -> None:
        keys.add(engine, "new", OTHER)
        await asyncio.to_thread(engine.rpc, "nvmf_subsystem_set_keys", nqn=NQN, host=HOST, dhchap_key="new")
        await use(association)
        with pytest.raises(NotAuthenticated):
            await open_association(options(guarded, known(MINE)))
        await association.authenticate(known(OTHER, groups=(DhGroup.FFDHE2048,)))
        await use(association)
        again = await open_association(options(guarded, known(OTHER)))
        await use(again)
        await again.close()

    connected(guarded, known(MINE, THEIRS), story)


@pytest.mark.parametrize(
    ("credentials", "why"),
    [(known(OTHER), "refuses the host"), (known(MINE, OTHER), "the response is wrong")],
    ids=["the host", "the controller"],
)
def test_who_cannot_prove_it_again_is_disconnected(
    engine: Any, guarded: int, credentials: Credentials, why: str
) -> None:
    async def story(association: Association) -> None:
        with pytest.raises(NotAuthenticated, match=why):
            await association.authenticate(credentials)
        with pytest.raises(TransportLost):
            await use(association)

    connected(guarded, known(MINE), story)


def test_a_queue_that_need_not_authenticate_may_try(engine: Any, guarded: int) -> None:
    """As in SPDK: the exchange begins as everywhere, and there is no key to end it with."""
    engine.rpc("nvmf_subsystem_set_keys", nqn=NQN, host=HOST)

    async def story(association: Association) -> None:
        with pytest.raises(NotAuthenticated, match="refuses the host: failed"):
            await association.authenticate(known(MINE))

    connected(guarded, NO_CREDENTIALS, story)


def test_keys_by_name_are_shown_and_secrets_are_not(engine: Any, guarded: int) -> None:
    named = {"nqn": HOST, "dhchap_key": "host-key", "dhchap_ctrlr_key": "controller-key"}
    assert engine.rpc("nvmf_get_subsystems", nqn=NQN)[0]["hosts"] == [named]
    config = engine.rpc("framework_get_config", name="nvmf")
    added = [call["params"] for call in config if call["method"] == "nvmf_subsystem_add_host"]
    assert added == [{"nqn": NQN, "host": HOST, "dhchap_key": "host-key", "dhchap_ctrlr_key": "controller-key"}]
    assert "DHHC" not in str(config)
    refcounts = {key["name"]: key["refcnt"] for key in engine.rpc("keyring_get_keys")}
    assert refcounts == {"host-key": 2, "controller-key": 2}
    engine.rpc("nvmf_subsystem_set_keys", nqn=NQN, host=HOST, dhchap_key="controller-key")
    assert engine.rpc("nvmf_get_subsystems", nqn=NQN)[0]["hosts"] == [{"nqn": HOST, "dhchap_key": "controller-key"}]
    engine.rpc("nvmf_subsystem_remove_host", nqn=NQN, host=HOST)
    assert {key["refcnt"] for key in engine.rpc("keyring_get_keys")} == {1}


def test_keys_that_are_refused(engine: Any, guarded: int) -> None:
    def add(**given: str) -> int:
        return engine.number("nvmf_subsystem_add_host", nqn=NQN, host=f"{HOST}2", **given)

    def change(host: str = HOST, nqn: str = NQN, **given: str) -> int:
        return engine.number("nvmf_subsystem_set_keys", nqn=nqn, host=host, **given)

    assert add(dhchap_key="none") == -32602
    assert add(dhchap_key="host-key", dhchap_ctrlr_key="none") == -32602
    assert add(dhchap_ctrlr_key="host-key") == -32603
    assert add(dhchap_key="host-key", dhchap_ctrlr_key=1) == -32602
    assert change(dhchap_key="none") == -32602
    assert change(dhchap_ctrlr_key="host-key") == -22
    assert change(host=f"{HOST}2", dhchap_key="host-key") == -22
    assert change(nqn=f"{NQN}2", dhchap_key="host-key") == -32602
    assert change(unknown="x") == -32602
    assert change(tgt_name="other") == -32603
    assert len(engine.rpc("nvmf_get_subsystems", nqn=NQN)[0]["hosts"]) == 1
    assert {key["refcnt"] for key in engine.rpc("keyring_get_keys")} == {2}


def test_a_target_may_be_told_what_to_use(engines: Any, keys: Keys) -> None:
    engine = engines.waiting()
    try:
        for wrong in ({"dhchap_digests": ["md5"]}, {"dhchap_dhgroups": ["ffdhe1024"]}, {"dhchap_digests": "sha256"}):
            assert engine.number("nvmf_set_config", **wrong) == -32602
        engine.rpc("nvmf_set_config", dhchap_digests=["sha384", "sha256"], dhchap_dhgroups=["ffdhe2048"])
        engine.run(framework.start_init())
        config = engine.rpc("framework_get_config", name="nvmf")
        shown = next(call["params"] for call in config if call["method"] == "nvmf_set_config")
        assert (shown["dhchap_digests"], shown["dhchap_dhgroups"]) == (["sha256", "sha384"], ["ffdhe2048"])
        engine.malloc("m0")
        port = engine.serve(NQN, "m0", allow_any_host=False)
        engine.run(nvmf.add_host(NQN, HOST, dhchap_key=keys.add(engine, "k", MINE)))
        connected(port, known(groups=tuple(DhGroup)))
        with pytest.raises(NotAuthenticated, match="hash unusable"):
            connected(port, known(digests=(Digest.SHA512,), groups=tuple(DhGroup)))
        with pytest.raises(NotAuthenticated, match="group unusable"):
            connected(port, known(groups=QUICK))
    finally:
        engine.stop()


def test_one_direction_after_both(engine: Any, guarded: int) -> None:
    """SPDK 26.05 goes on waiting for the host's last word, and refuses the third exchange."""

    async def story(association: Association) -> None:
        await association.authenticate(known(MINE))
        if engine.kind == "embedded":
            await association.authenticate(known(MINE))
            await use(association)
        else:
            with pytest.raises(NotAuthenticated, match="incorrect message"):
                await association.authenticate(known(MINE))

    connected(guarded, known(MINE, THEIRS), story)
