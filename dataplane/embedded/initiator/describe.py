"""Controllers, paths and namespaces as SPDK's RPC methods show them.

Why: the control plane reads these objects, so their shape is a contract, kept in one place.  This module must
never change what it shows.
Source: SPDK v26.05 module/bdev/nvme/bdev_nvme.c (``nvme_ctrlr_info_json``, ``nvme_namespace_info_json``,
``nvme_io_path_info_json``) and bdev_nvme_rpc.c (``get_health_log_page_completion``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dataplane.embedded.bdev.stats import IoStat
from dataplane.embedded.initiator.controller import Controller
from dataplane.embedded.initiator.multipath import HostNamespace, Path
from dataplane.embedded.initiator.policy import Spread, candidates, usable
from dataplane.embedded.initiator.reconnect import Address
from dataplane.nvme.identify import CMIC_ANA, CMIC_MULTI_CONTROLLER, IdentifyController
from dataplane.nvme.logs import SmartLog

_U64: Final = (1 << 64) - 1
_KELVIN: Final = 273


def family(traddr: str) -> str:
    """ADRFAM of an IP address, as SPDK writes it."""
    return "IPv6" if ":" in traddr else "IPv4"


def trid_json(address: Address, subnqn: str) -> dict[str, object]:
    """A transport identifier."""
    return {
        "trtype": "TCP",
        "adrfam": family(address.traddr),
        "traddr": address.traddr,
        "trsvcid": address.trsvcid,
        "subnqn": subnqn,
    }


def controller_json(controller: Controller) -> dict[str, object]:
    """One entry of ``ctrlrs`` in ``bdev_nvme_get_controllers``."""
    subnqn = controller.options.subnqn
    shown: dict[str, object] = {
        "state": controller.link.phase.value,
        "trid": trid_json(controller.address, subnqn),
    }
    if controller.addresses[1:]:
        shown["alternate_trids"] = [trid_json(each, subnqn) for each in controller.addresses[1:]]
    source = controller.options.endpoint.source
    shown["cntlid"] = controller.cntlid
    shown["host"] = {
        "nqn": controller.options.hostnqn,
        "addr": source[0] if source else "",
        "svcid": str(source[1]) if source and source[1] else "",
        "no_shn_notification": False,
    }
    return shown


def namespace_json(path: Path) -> dict[str, object]:
    """One entry of ``driver_specific.nvme`` in ``bdev_get_bdevs``."""
    controller = path.controller
    identity = controller.identity
    data: dict[str, object] = {"id": path.nsid}
    if identity.cmic & CMIC_ANA:
        data["ana_state"] = path.ana.name.lower()
    shown = controller.shown.get(path.nsid)
    data["can_share"] = shown is not None and shown.shared
    return {
        "trid": trid_json(controller.address, controller.options.subnqn),
        "ctrlr_data": controller_data_json(identity),
        "vs": {"nvme_version": version(identity.ver)},
        "ns_data": data,
    }


def controller_data_json(identity: IdentifyController) -> dict[str, object]:
    """Identify Controller, as far as SPDK shows it."""
    shown: dict[str, object] = {
        "cntlid": identity.cntlid,
        "vendor_id": f"0x{identity.vid:04x}",
        "model_number": identity.mn.strip(),
        "serial_number": identity.sn.strip(),
        "firmware_revision": identity.fr.strip(),
    }
    if identity.subnqn:
        shown["subnqn"] = identity.subnqn
    shown["oacs"] = {
        "security": identity.oacs & 1,
        "format": identity.oacs >> 1 & 1,
        "firmware": identity.oacs >> 2 & 1,
        "ns_manage": identity.oacs >> 3 & 1,
    }
    shown["multi_ctrlr"] = bool(identity.cmic & CMIC_MULTI_CONTROLLER)
    shown["ana_reporting"] = bool(identity.cmic & CMIC_ANA)
    return shown


def version(value: int) -> str:
    """The VS property as text: ``2.0``, ``1.2.1``."""
    major, minor, tertiary = value >> 16, value >> 8 & 0xFF, value & 0xFF
    return f"{major}.{minor}.{tertiary}" if tertiary else f"{major}.{minor}"


def io_paths_json(bdev_name: str, namespace: HostNamespace) -> list[dict[str, object]]:
    """The paths of one bdev in ``bdev_nvme_get_io_paths``."""
    return [
        {
            "bdev_name": bdev_name,
            "cntlid": path.controller.cntlid,
            "current": _current(namespace, index),
            "connected": path.connected,
            "accessible": usable(path) or (path.present and path.ana.name in ("OPTIMIZED", "NON_OPTIMIZED")),
            "transport": {
                "trtype": "TCP",
                "traddr": path.controller.address.traddr,
                "trsvcid": path.controller.address.trsvcid,
                "adrfam": family(path.controller.address.traddr),
            },
        }
        for index, path in enumerate(namespace.paths)
    ]


def path_iostat_json(namespace: HostNamespace) -> list[dict[str, object]]:
    """``stats`` of ``bdev_nvme_get_path_iostat``; a path has no member of its own for errors."""
    shown: list[dict[str, object]] = []
    for path in namespace.paths:
        stat = (path.stat or IoStat()).to_json()
        del stat["io_error"]
        trid = trid_json(path.controller.address, path.controller.options.subnqn)
        shown.append({"trid": trid, "stat": stat})
    return shown


def _current(namespace: HostNamespace, index: int) -> bool:
    """Whether the next I/O may take the path."""
    best = candidates(namespace.paths)
    if namespace.selection.spread is not Spread.ACTIVE_PASSIVE or len(best) <= 1:
        return index in best
    return index == (namespace.cursor.current if namespace.cursor.current in best else best[0])


def health_json(identity: IdentifyController, traddr: str, page: SmartLog, raw: bytes) -> dict[str, object]:
    """``bdev_nvme_get_controller_health_info``; ``raw`` is the page that ``page`` was read from.

    SPDK repeats the key of the temperature sensors; what a JSON reader makes of that, the last one, stands here.
    """
    shown: dict[str, object] = {
        "model_number": identity.mn.strip(),
        "serial_number": identity.sn.strip(),
        "firmware_revision": identity.fr.strip(),
        "traddr": traddr,
        "critical_warning": page.critical_warning,
        "temperature_celsius": _celsius(page.temperature),
        "available_spare_percentage": page.available_spare,
        "available_spare_threshold_percentage": page.spare_threshold,
        "percentage_used": page.percentage_used,
        "data_units_read": page.data_units_read,
        "data_units_written": page.data_units_written,
        "host_read_commands": page.host_reads,
        "host_write_commands": page.host_writes,
        "controller_busy_time": page.controller_busy_minutes,
        "power_cycles": page.power_cycles,
        "power_on_hours": page.power_on_hours,
        "unsafe_shutdowns": page.unsafe_shutdowns,
        "media_errors": page.media_errors,
        "num_err_log_entries": page.error_entries,
        "warning_temperature_time_minutes": int.from_bytes(raw[192:196], "little"),
        "critical_composite_temperature_time_minutes": int.from_bytes(raw[196:200], "little"),
    }
    sensors: Sequence[int] = [int.from_bytes(raw[at : at + 2], "little") for at in range(200, 216, 2)]
    for kelvin in sensors:
        if kelvin:
            shown["temperature_sensor_celsius"] = _celsius(kelvin)
    return shown


def _celsius(kelvin: int) -> int:
    """As SPDK prints it: an unsigned number, so that a controller without a sensor shows 2^64 - 273."""
    return (kelvin - _KELVIN) & _U64
