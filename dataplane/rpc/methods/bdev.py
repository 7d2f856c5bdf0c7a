"""Block devices: reading them, the simple kinds, splits, rate limits, counters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controlplane.domain.units import MIB
from dataplane.rpc import reply
from dataplane.rpc.call import Call
from dataplane.rpc.errors import ReplyError
from dataplane.rpc.jsontype import Json
from dataplane.rpc.methods import nvme, units
from dataplane.rpc.reply import Fields
from dataplane.rpc.values import BdevInfo, BdevStat, ConfigEntry, IostatInfo, QosLimits, SplitConfig


def set_options(
    *, auto_examine: bool | None = None, io_pool_size: int | None = None, io_cache_size: int | None = None
) -> Call[None]:
    """Options of the bdev layer; start-up phase only.  ``auto_examine`` must be off on drives that two nodes
    reach: examining loads, and may repair, what the other node is using."""
    return Call(
        "bdev_set_options",
        {
            "bdev_auto_examine": auto_examine,
            "bdev_io_pool_size": io_pool_size,
            "bdev_io_cache_size": io_cache_size,
        },
        parse=reply.done,
    )


def wait_for_examine() -> Call[None]:
    """Answered when no device is being examined."""
    return Call("bdev_wait_for_examine", parse=reply.done)


def get_bdevs() -> Call[tuple[BdevInfo, ...]]:
    """Every device."""
    return Call("bdev_get_bdevs", parse=lambda raw: reply.objects(raw, "bdev_get_bdevs", _bdev))


def get_bdev(name: str) -> Call[BdevInfo]:
    """One device by name, alias or UUID; ENODEV when there is none."""

    def parse(raw: Json) -> BdevInfo:
        found = reply.objects(raw, "bdev_get_bdevs", _bdev)
        if len(found) != 1:
            raise ReplyError("bdev_get_bdevs", f"has {len(found)} devices for one name")
        return found[0]

    return Call("bdev_get_bdevs", {"name": name}, parse=parse)


def _bdev(entry: Fields) -> BdevInfo:
    specific = entry.inner("driver_specific")
    split, aio = specific.inner("split"), specific.inner("aio")
    limits = entry.inner("assigned_rate_limits")
    io_types = entry.inner("supported_io_types")
    return BdevInfo(
        name=entry.text("name"),
        uuid=entry.text("uuid"),
        aliases=entry.texts("aliases", []),
        product_name=entry.text("product_name", ""),
        block_size_bytes=entry.number("block_size"),
        num_blocks=entry.number("num_blocks"),
        claimed=entry.flag("claimed"),
        claim_type=entry.text("claim_type", ""),
        numa_id=_node(entry.maybe_number("numa_id")),
        qos=_limits(limits),
        io_types=frozenset(name for name, can in io_types.raw.items() if can is True),
        split_base=split.text("base_bdev", ""),
        split_offset_blocks=split.number("offset_blocks", 0),
        aio_path=aio.text("filename", ""),
        nvme=specific.each("nvme", nvme.namespace, []),
        driver_specific=specific.raw,
    )


def _limits(entry: Fields) -> QosLimits:
    return QosLimits(
        rw_ios_per_s=entry.number("rw_ios_per_sec", 0),
        rw_bytes_per_s=entry.number("rw_mbytes_per_sec", 0) * MIB,
        r_bytes_per_s=entry.number("r_mbytes_per_sec", 0) * MIB,
        w_bytes_per_s=entry.number("w_mbytes_per_sec", 0) * MIB,
    )


def limits_in_config(entries: Iterable[ConfigEntry]) -> dict[str, QosLimits]:
    """Limits by device name, from ``framework.get_config("bdev")``: one answer for all devices.  A device without
    limits is absent.  SPDK reads them from where ``bdev_get_bdevs`` does (lib/bdev/bdev.c,
    ``spdk_bdev_get_qos_rate_limits``), and they are what is in force."""
    found: dict[str, QosLimits] = {}
    for entry in entries:
        if entry.method == "bdev_set_qos_limit":
            params = Fields(dict(entry.params), entry.method)
            limits = _limits(params)
            if limits != QosLimits():
                found[params.text("name")] = limits
    return found


def splits_in_config(entries: Iterable[ConfigEntry]) -> dict[str, SplitConfig]:
    """Splits by the name of their base, from ``framework.get_config("bdev")``; a base without an entry has none.
    SPDK keeps an entry for as long as there are parts (module/bdev/split/vbdev_split.c, ``vbdev_split_base_free``)."""
    found: dict[str, SplitConfig] = {}
    for entry in entries:
        if entry.method == "bdev_split_create":
            params = Fields(dict(entry.params), entry.method)
            found[params.text("base_bdev")] = SplitConfig(
                count=params.number("split_count"), part_bytes=params.number("split_size_mb", 0) * MIB
            )
    return found


def _node(numa_id: int | None) -> int | None:
    """SPDK says -1 for "any" (SPDK_ENV_NUMA_ID_ANY)."""
    return None if numa_id is None or numa_id < 0 else numa_id


def split_create(base_bdev: str, *, count: int, size_bytes: int | None = None) -> Call[tuple[str, ...]]:
    """Cut ``count`` parts of ``size_bytes`` (whole MiB) each from the beginning of ``base_bdev``, named
    ``<base>p0``, ``<base>p1``, ...; equal parts of the whole without a size.  All splits of a base are made by one
    call; a second fails."""
    return Call(
        "bdev_split_create",
        {
            "base_bdev": base_bdev,
            "split_count": count,
            "split_size_mb": units.mib("size_bytes", size_bytes),
        },
        parse=lambda raw: reply.strings(raw, "bdev_split_create"),
    )


def split_delete(base_bdev: str) -> Call[None]:
    """Take all splits of ``base_bdev`` away."""
    return Call("bdev_split_delete", {"base_bdev": base_bdev}, parse=reply.done)


def null_create(name: str, *, block_size_bytes: int, size_bytes: int, uuid: str | None = None) -> Call[str]:
    """A device that drops writes and reads nothing back; stands in for a missing leg."""
    return Call("bdev_null_create", _plain(name, block_size_bytes, size_bytes, uuid), parse=reply.name)


def null_delete(name: str) -> Call[None]:
    """Take it away; ENODEV when there is none."""
    return Call("bdev_null_delete", {"name": name}, parse=reply.done)


def malloc_create(name: str, *, block_size_bytes: int, size_bytes: int, uuid: str | None = None) -> Call[str]:
    """A device in the engine's memory."""
    return Call("bdev_malloc_create", _plain(name, block_size_bytes, size_bytes, uuid), parse=reply.name)


def malloc_delete(name: str) -> Call[None]:
    """Take it away with its contents."""
    return Call("bdev_malloc_delete", {"name": name}, parse=reply.done)


def _plain(name: str, block_size_bytes: int, size_bytes: int, uuid: str | None) -> dict[str, Any]:
    return {
        "name": name,
        "block_size": block_size_bytes,
        "num_blocks": units.blocks(size_bytes, block_size_bytes),
        "uuid": uuid,
    }


def aio_create(
    name: str,
    *,
    path: str,
    block_size_bytes: int | None = None,
    read_only: bool | None = None,
    fallocate: bool | None = None,
    uuid: str | None = None,
) -> Call[str]:
    """A device on a file or a kernel block device.  ``fallocate`` lets it unmap and write zeroes."""
    return Call(
        "bdev_aio_create",
        {
            "name": name,
            "filename": path,
            "block_size": block_size_bytes,
            "readonly": read_only,
            "fallocate": fallocate,
            "uuid": uuid,
        },
        parse=reply.name,
    )


def aio_delete(name: str) -> Call[None]:
    """Take it away; the file stays."""
    return Call("bdev_aio_delete", {"name": name}, parse=reply.done)


def aio_rescan(name: str) -> Call[None]:
    """Take the size that the file has now: it may only have grown.  An empty file takes the device away."""
    return Call("bdev_aio_rescan", {"name": name}, parse=reply.done)


def null_resize(name: str, size_bytes: int) -> Call[None]:
    """Make it larger: whole MiB."""
    return Call("bdev_null_resize", {"name": name, "new_size": units.mib("size_bytes", size_bytes)}, parse=reply.done)


def set_qos_limit(
    name: str,
    *,
    rw_ios_per_s: int | None = None,
    rw_bytes_per_s: int | None = None,
    r_bytes_per_s: int | None = None,
    w_bytes_per_s: int | None = None,
) -> Call[None]:
    """Limit a device: 0 takes a limit away, ``None`` leaves it.  Bytes are whole MiB; the engine raises I/O
    limits to a multiple of 1000 (lib/bdev/bdev.c:10263), so give one."""
    return Call(
        "bdev_set_qos_limit",
        {
            "name": name,
            "rw_ios_per_sec": rw_ios_per_s,
            "rw_mbytes_per_sec": units.mib("rw_bytes_per_s", rw_bytes_per_s),
            "r_mbytes_per_sec": units.mib("r_bytes_per_s", r_bytes_per_s),
            "w_mbytes_per_sec": units.mib("w_bytes_per_s", w_bytes_per_s),
        },
        parse=reply.done,
    )


def get_iostat(names: Sequence[str] | None = None) -> Call[IostatInfo]:
    """Counters of the named devices, or of all."""

    def parse(raw: Json) -> IostatInfo:
        top = Fields(raw, "bdev_get_iostat")
        return IostatInfo(
            tick_rate_hz=top.number("tick_rate"), ticks=top.number("ticks"), bdevs=top.each("bdevs", _stat)
        )

    return Call("bdev_get_iostat", {"names": None if names is None else list(names)}, parse=parse)


def _stat(entry: Fields) -> BdevStat:
    errors: Mapping[str, int] = {
        name: count for name, count in entry.inner("io_error").raw.items() if isinstance(count, int)
    }
    return BdevStat(
        name=entry.text("name"),
        bytes_read=entry.number("bytes_read"),
        read_ops=entry.number("num_read_ops"),
        bytes_written=entry.number("bytes_written"),
        write_ops=entry.number("num_write_ops"),
        bytes_unmapped=entry.number("bytes_unmapped", 0),
        unmap_ops=entry.number("num_unmap_ops", 0),
        read_latency_ticks=entry.number("read_latency_ticks", 0),
        write_latency_ticks=entry.number("write_latency_ticks", 0),
        io_errors=errors,
    )
