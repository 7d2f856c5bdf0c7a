"""Names and addresses: legal, canonical, refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controlplane.domain.names import (
    NamingError,
    check_interface,
    check_name,
    check_nqn,
    check_path,
    check_rpc,
    check_serial,
    check_socket_path,
    ip_text,
    pcie_address,
    split_host_port,
)

UUID_NQN = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-55555555555A"


@pytest.mark.parametrize(
    ("check", "text", "canonical"),
    [
        (check_name, "a", "a"),
        (check_name, "train-data-1", "train-data-1"),
        (check_name, "x" * 40, "x" * 40),
        (check_nqn, "nqn.2026-01.io.ws7000:demo:default", "nqn.2026-01.io.ws7000:demo:default"),
        (check_nqn, UUID_NQN, UUID_NQN),
        (pcie_address, "01:00.0", "0000:01:00.0"),
        (pcie_address, "0000:C1:1f.7", "0000:c1:1f.7"),
        (pcie_address, "10000:01:00.0", "10000:01:00.0"),
        (ip_text, "FD00:0::1", "fd00::1"),
        (ip_text, "10.8.0.1", "10.8.0.1"),
        (check_rpc, "/run/a.sock", "/run/a.sock"),
        (check_rpc, "[::1]:5260", "[::1]:5260"),
        (check_rpc, "node-a.example:5260", "node-a.example:5260"),
        (check_serial, "S6XYZ 123", "S6XYZ 123"),
    ],
)
def test_legal(check: Callable[[str], str], text: str, canonical: str) -> None:
    assert check(text) == canonical
    assert check(canonical) == canonical


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (check_name, ""),
        (check_name, "A"),
        (check_name, "-a"),
        (check_name, "a-"),
        (check_name, "a_b"),
        (check_name, "a\n"),
        (check_name, "x" * 41),
        (check_nqn, "nqn.2026-13.io.ws7000:x"),
        (check_nqn, "nqn.2026-01.io.ws7000"),
        (check_nqn, "nqn.2026-01.io.ws7000:"),
        (check_nqn, "nqn.2026-01.io.1x:y"),
        (check_nqn, "nqn.2026-01.io.x-:y"),
        (check_nqn, "nqn.2026-01.io:a b"),
        (check_nqn, "nqn.2026-01.io:" + "x" * 223),
        (check_nqn, "nqn.2014-08.org.nvmexpress:uuid:{11111111-2222-3333-4444-555555555555}"),
        (pcie_address, "0000:01:20.0"),
        (pcie_address, "0000:01:00.8"),
        (pcie_address, "60"),
        (ip_text, "::"),
        (ip_text, "224.0.0.1"),
        (ip_text, "fe80::1%eth0"),
        (ip_text, "localhost"),
        (check_rpc, "a.sock"),
        (check_rpc, "host:0"),
        (check_rpc, "300.0.0.1:5"),
        (check_rpc, "[zz]:5"),
        (check_rpc, "/" + "x" * 107),
        (check_path, ""),
        (check_path, "a\x00b"),
        (check_path, "x" * 5000),
        (check_serial, " S1"),
        (check_serial, "x" * 21),
        (check_serial, "\u00e4"),
        (check_socket_path, "a.sock"),
        (check_socket_path, "/" + "x" * 107),
        (check_interface, ""),
        (check_interface, "x" * 16),
        (check_interface, ".."),
        (check_interface, "eth0/1"),
        (check_interface, "eth0:1"),
        (check_interface, "eth 0"),
    ],
)
def test_refused(check: Callable[[str], str], text: str) -> None:
    with pytest.raises(NamingError):
        check(text)


def test_split_host_port() -> None:
    assert split_host_port("[fd00::1]:80") == ("fd00::1", 80)
    assert split_host_port("localhost:80") == ("localhost", 80)
