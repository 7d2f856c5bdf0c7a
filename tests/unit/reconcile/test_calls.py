"""Which engine calls a step becomes."""

from __future__ import annotations

from controlplane.planner.steps import CreateTransport
from controlplane.reconcile.calls import calls_for


def test_hosts_are_not_offered_what_a_node_cannot_keep() -> None:
    """Reservations; and Compare, alone or fused: an engine asks a drive that reports a miscompare again for ever."""
    step = CreateTransport(node="a", subject="tcp", transport="tcp", sentence="open the TCP transport")
    (call,) = calls_for(step)
    assert call.method == "nvmf_create_transport"
    assert call.params == {"trtype": "TCP", "masked_oncs": ["reservs", "nvmcmps"], "masked_fuses": ["fcws"]}
