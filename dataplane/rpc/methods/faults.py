"""Devices that fail or wait on demand, laid over others: for tests and rehearsals, never under data that matters."""

from __future__ import annotations

from typing import Literal

from dataplane.rpc import reply
from dataplane.rpc.call import Call
from dataplane.rpc.methods import units

IoType = Literal["clear", "read", "write", "unmap", "flush", "all"]
ErrorType = Literal["failure", "pending", "corrupt_data", "nomem", "nvme_failure"]
LatencyType = Literal["avg_read", "p99_read", "avg_write", "p99_write"]


def error_create(base_name: str) -> Call[None]:
    """``EE_<base_name>`` over a device, now or when that appears."""
    return Call("bdev_error_create", {"base_name": base_name}, parse=reply.done)


def error_delete(name: str) -> Call[None]:
    """Take it away; first let go on what is pending, since SPDK waits for that."""
    return Call("bdev_error_delete", {"name": name}, parse=reply.done)


def inject_error(
    name: str,
    *,
    io_type: IoType,
    error_type: ErrorType,
    num: int = 1,
    status: int | None = None,
    queue_depth: int | None = None,
    corrupt_offset_bytes: int | None = None,
    corrupt_value: int | None = None,
) -> Call[None]:
    """What the next ``num`` I/Os of a kind meet; "clear" takes back what is left of all kinds.

    ``status`` (status code type << 8 | status code) is for "nvme_failure"; ``corrupt_value`` is what the byte at
    ``corrupt_offset_bytes`` is combined with (exclusive or).
    """
    return Call(
        "bdev_error_inject_error",
        {
            "name": name,
            "io_type": io_type,
            "error_type": error_type,
            "num": num,
            "nvme_sct": None if status is None else status >> 8,
            "nvme_sc": None if status is None else status & 0xFF,
            "queue_depth": queue_depth,
            "corrupt_offset": corrupt_offset_bytes,
            "corrupt_value": corrupt_value,
        },
        parse=reply.done,
    )


def resume_pending(name: str) -> Call[None]:
    """Let I/O that was made to wait go on."""
    return Call("bdev_error_resume_pending", {"name": name}, parse=reply.done)


def delay_create(
    name: str,
    base_bdev: str,
    *,
    avg_read_ns: int = 0,
    p99_read_ns: int = 0,
    avg_write_ns: int = 0,
    p99_write_ns: int = 0,
    uuid: str | None = None,
) -> Call[str]:
    """A device that answers late; times are whole microseconds, p99 not below the average."""
    return Call(
        "bdev_delay_create",
        {
            "name": name,
            "base_bdev_name": base_bdev,
            "avg_read_latency": units.us("avg_read_ns", avg_read_ns),
            "p99_read_latency": units.us("p99_read_ns", p99_read_ns),
            "avg_write_latency": units.us("avg_write_ns", avg_write_ns),
            "p99_write_latency": units.us("p99_write_ns", p99_write_ns),
            "uuid": uuid,
        },
        parse=reply.name,
    )


def delay_update(name: str, latency_type: LatencyType, latency_ns: int) -> Call[None]:
    """One of its times, for I/O that ends from now on."""
    return Call(
        "bdev_delay_update_latency",
        {"delay_bdev_name": name, "latency_type": latency_type, "latency_us": units.us("latency_ns", latency_ns)},
        parse=reply.done,
    )


def delay_delete(name: str) -> Call[None]:
    """Take it away."""
    return Call("bdev_delay_delete", {"name": name}, parse=reply.done)
