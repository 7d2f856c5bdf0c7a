"""bdev_nvme_set_options: what SPDK refuses, and what it shows."""

from __future__ import annotations

import pytest

from dataplane.embedded.initiator.bdev import generated_uuid
from dataplane.embedded.initiator.describe import version
from dataplane.embedded.initiator.options import MultipathOptions, NvmeOptions
from dataplane.embedded.initiator.policy import Selection, Spread


@pytest.mark.parametrize(
    "given",
    [
        {"bdev_retry_count": -2},
        {"timeout_admin_us": 5},
        {"reconnect_delay_sec": 5},
        {"ctrlr_loss_timeout_sec": -1},
        {"ctrlr_loss_timeout_sec": 4, "reconnect_delay_sec": 5},
        {"multipath_opts": {"policy": "active_active", "min_io": 0}},
    ],
)
def test_options_that_do_not_go_together_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"_sec|retry|timeout|min_io"):
        NvmeOptions().merge(given)


def test_a_call_changes_only_what_it_names() -> None:
    first = NvmeOptions().merge({"ctrlr_loss_timeout_sec": -1, "reconnect_delay_sec": 1})
    second = first.merge({"bdev_retry_count": -1, "multipath_opts": {"policy": "active_active"}})
    assert (second.reconnect_delay_sec, second.bdev_retry_count) == (1, -1)
    assert second.multipath_opts == MultipathOptions("active_active", "round_robin", 1)


def test_what_is_shown_is_what_spdk_shows() -> None:
    shown = NvmeOptions().to_json()
    assert list(shown)[:3] == ["action_on_timeout", "timeout_us", "timeout_admin_us"]
    assert shown["io_queue_requests"] == 512
    assert shown["multipath_opts"] == {"policy": "active_passive"}
    active = MultipathOptions("active_active", "queue_depth").to_json()
    assert active == {"policy": "active_active", "selector": "queue_depth"}


def test_digest_names_keep_their_order() -> None:
    options = NvmeOptions().merge({"dhchap_digests": ["sha512", "sha256"]})
    assert options.to_json()["dhchap_digests"] == ["sha256", "sha512"]


@pytest.mark.parametrize(("exponent", "expected_ms"), [(0, 0), (9, 512), (31, 0x7FFFFFFF), (200, 0x7FFFFFFF)])
def test_the_ack_timeout_is_a_power_of_two_of_milliseconds_over_tcp(exponent: int, expected_ms: int) -> None:
    assert NvmeOptions(transport_ack_timeout=exponent).user_timeout_ms == expected_ms


def test_multipath_options_become_a_selection() -> None:
    assert MultipathOptions().selection(failback=True) == Selection(Spread.ACTIVE_PASSIVE)
    active = MultipathOptions("active_active", "round_robin", 4)
    assert active.selection(failback=False) == Selection(Spread.ROUND_ROBIN, 4, failback=False)


def test_generated_uuids_follow_from_serial_and_nsid() -> None:
    assert generated_uuid("S1", 1) == generated_uuid("S1", 1)
    assert len({generated_uuid("S1", 1), generated_uuid("S1", 2), generated_uuid("S2", 1)}) == 3


def test_versions_as_text() -> None:
    assert (version(0x020000), version(0x010201)) == ("2.0", "1.2.1")
