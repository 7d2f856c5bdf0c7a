"""The engine as a whole: version, phases of its life, its own account of its configuration, reactors."""

from __future__ import annotations

from dataplane.rpc import reply
from dataplane.rpc.call import Call
from dataplane.rpc.jsontype import Json
from dataplane.rpc.reply import Fields
from dataplane.rpc.values import ConfigEntry, EngineVersion, Reactor, ReactorsInfo


def get_version() -> Call[EngineVersion]:
    """What the engine is; may be called in any phase."""

    def parse(raw: Json) -> EngineVersion:
        top = Fields(raw, "spdk_get_version")
        numbers = top.inner("fields")
        return EngineVersion(
            text=top.text("version"),
            major=numbers.number("major"),
            minor=numbers.number("minor"),
            patch=numbers.number("patch", 0),
        )

    return Call("spdk_get_version", parse=parse)


def get_methods(*, current: bool | None = None) -> Call[frozenset[str]]:
    """The methods the engine has, or with ``current`` those it would take in its present phase."""
    return Call(
        "rpc_get_methods",
        {"current": current},
        parse=lambda raw: frozenset(reply.strings(raw, "rpc_get_methods")),
    )


def start_init() -> Call[None]:
    """Leave the start-up phase; answered when the engine is ready."""
    return Call("framework_start_init", parse=reply.done)


def wait_init() -> Call[None]:
    """Answered when the engine is ready, whoever started it."""
    return Call("framework_wait_init", parse=reply.done)


def get_config(subsystem: str) -> Call[tuple[ConfigEntry, ...]]:
    """How one of the engine's own subsystems (``bdev``, ``nvmf``) would be made again.  It leaves ANA states out,
    so it is never the truth about them.  Empty for a subsystem without configuration."""

    def read(entry: Fields) -> ConfigEntry:
        return ConfigEntry(method=entry.text("method"), params=entry.inner("params").raw)

    def usual(raw: Json) -> ConfigEntry | None:
        """An entry with parameters; there are thousands with many volumes."""
        if not isinstance(raw, dict) or type(raw.get("method")) is not str or type(raw.get("params")) is not dict:
            return None
        return ConfigEntry(method=raw["method"], params=raw["params"])

    return Call(
        "framework_get_config",
        {"name": subsystem},
        parse=lambda raw: reply.objects([] if raw is None else raw, "framework_get_config", read, usual),
    )


def get_subsystems() -> Call[tuple[str, ...]]:
    """The names of the engine's own subsystems, in the order of their start."""
    return Call(
        "framework_get_subsystems",
        parse=lambda raw: reply.objects(raw, "framework_get_subsystems", lambda entry: entry.text("subsystem")),
    )


def get_reactors() -> Call[ReactorsInfo]:
    """The polling cores and the engine's process id."""

    def read(reactor: Fields) -> Reactor:
        return Reactor(
            lcore=reactor.number("lcore"),
            busy_ticks=reactor.number("busy"),
            idle_ticks=reactor.number("idle"),
            threads=reactor.each("lw_threads", lambda thread: thread.text("name"), []),
        )

    def parse(raw: Json) -> ReactorsInfo:
        top = Fields(raw, "framework_get_reactors")
        return ReactorsInfo(
            pid=top.number("pid"),
            tick_rate_hz=top.number("tick_rate"),
            reactors=top.each("reactors", read),
        )

    return Call("framework_get_reactors", parse=parse)


def kill_instance(signal: str = "SIGTERM") -> Call[None]:
    """Send the engine a signal: SIGTERM lets it end in order, SIGKILL does not even let it answer (which a
    session takes for success)."""
    return Call("spdk_kill_instance", {"sig_name": signal}, parse=reply.done)


def iobuf_set_options(
    *,
    small_pool_count: int | None = None,
    large_pool_count: int | None = None,
    small_bufsize_bytes: int | None = None,
    large_bufsize_bytes: int | None = None,
    enable_numa: bool | None = None,
) -> Call[None]:
    """Buffer pools of the whole engine, or of each NUMA node with ``enable_numa``; start-up phase only."""
    return Call(
        "iobuf_set_options",
        {
            "small_pool_count": small_pool_count,
            "large_pool_count": large_pool_count,
            "small_bufsize": small_bufsize_bytes,
            "large_bufsize": large_bufsize_bytes,
            "enable_numa": enable_numa,
        },
        parse=reply.done,
    )
