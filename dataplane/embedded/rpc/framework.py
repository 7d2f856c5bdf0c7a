"""Methods about the process: version, methods, initialisation, configuration, load, end.

Source: SPDK v26.05 lib/rpc/rpc.c, lib/init/subsystem_rpc.c, lib/event/{app,app_rpc}.c.
"""

from __future__ import annotations

import importlib.metadata
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Final

from dataplane.embedded.bdev.memory import MallocBdev, NullBdev
from dataplane.embedded.bdev.stats import TICKS_PER_SECOND
from dataplane.embedded.rpc.registry import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHODS,
    RUNTIME,
    STARTUP,
    Param,
    Params,
    RpcFault,
    method,
)

if TYPE_CHECKING:
    from dataplane.embedded.engine import Engine

SPDK_MAJOR: Final = 26
SPDK_MINOR: Final = 5
"""The release whose methods and answers these are; clients choose their schema by it."""
_DEPENDS: Final = {
    "scheduler": [],
    "sock": [],
    "iobuf": [],
    "keyring": [],
    "bdev": ["keyring", "sock", "iobuf"],
    "nvmf": ["bdev", "keyring", "sock", "iobuf"],
}
Calls = list[dict[str, object]]


@cache
def version() -> str:
    """``SPDK v26.05 (WS7000 embedded engine 0.1.0)``."""
    try:
        ours = importlib.metadata.version("ws7000")
    except importlib.metadata.PackageNotFoundError:
        ours = "of an unknown version"  # run from a tree that was never installed
    return f"SPDK v{SPDK_MAJOR}.{SPDK_MINOR:02} (WS7000 embedded engine {ours})"


@method(
    "spdk_get_version",
    STARTUP | RUNTIME,
    decode_error=(INVALID_PARAMS, "spdk_get_version method requires no parameters"),
)
async def spdk_get_version(engine: Engine, p: Params) -> object:  # noqa: ARG001 - it has no parameters
    """Whose contract this is, and who serves it."""
    fields = {"major": SPDK_MAJOR, "minor": SPDK_MINOR, "patch": 0, "suffix": ""}
    return {"version": version(), "fields": fields}


@method(
    "rpc_get_methods",
    STARTUP | RUNTIME,
    Param("current", "boolean"),
    Param("include_aliases", "boolean"),
)
async def rpc_get_methods(engine: Engine, p: Params) -> object:
    """Names of methods; ``current`` keeps those that may be called now.  There are no aliases."""
    current = p.get("current", False)
    return [found.name for found in METHODS.values() if not current or found.states & engine.state]


@method("framework_start_init", STARTUP)
async def framework_start_init(engine: Engine, p: Params) -> object:  # noqa: ARG001 - it has no parameters
    """Go from STARTUP to RUNTIME."""
    if not await engine.start_framework():
        raise RpcFault(INTERNAL_ERROR, "framework_initialization failed")
    return True


@method("framework_wait_init", STARTUP | RUNTIME, ignores_params=True)
async def framework_wait_init(engine: Engine, p: Params) -> object:  # noqa: ARG001 - SPDK does not look either
    """Answered once the state is RUNTIME."""
    await engine.running.wait()
    return True


@method(
    "framework_get_subsystems",
    RUNTIME,
    decode_error=(INVALID_PARAMS, "'framework_get_subsystems' requires no arguments"),
)
async def framework_get_subsystems(engine: Engine, p: Params) -> object:  # noqa: ARG001 - a fixed list
    """Parts of the process and what they rest on."""
    return [{"subsystem": name, "depends_on": list(others)} for name, others in _DEPENDS.items()]


def bdev_calls(engine: Engine) -> Calls:
    """The calls that bring all bdevs back (lib/bdev: spdk_bdev_subsystem_config_json)."""
    calls: Calls = [{"method": "bdev_set_options", "params": dict(engine.options.bdev)}]
    calls += [{"method": "bdev_examine", "params": {"name": name}} for name in engine.bdevs.examine_names]
    calls += [config.to_json() for config in engine.splits.configs.values()]
    calls += engine.errors.config() + engine.delays.config()
    raid_options = {
        "process_window_size_kb": engine.raids.process_window_size_kb,
        "process_max_bandwidth_mb_sec": engine.raids.process_max_bandwidth_mb_sec,
    }
    calls.append({"method": "bdev_raid_set_options", "params": raid_options})
    in_memory = [bdev for bdev in engine.bdevs if isinstance(bdev, MallocBdev | NullBdev)]
    calls += [bdev.config() for bdev in in_memory]
    calls += engine.nvme.config()
    for bdev in engine.bdevs:
        call = None if bdev in in_memory else bdev.config()
        if call is not None:
            calls.append(call)
        # Asked for thousands of devices, of which few have limits.
        limits = {kind: value for kind, value in bdev.qos_limits.items() if value} if bdev.limits else None
        if limits:
            calls.append({"method": "bdev_set_qos_limit", "params": {"name": bdev.name} | limits})
        histogram = bdev.histogram
        if histogram is not None and histogram.enabled:
            counted = {"name": bdev.name, "enable": True} | ({"opc": histogram.io_type} if histogram.io_type else {})
            calls.append({"method": "bdev_enable_histogram", "params": counted})
    calls.append({"method": "bdev_wait_for_examine"})
    return calls


def _nvmf_calls(engine: Engine) -> Calls:
    return list(engine.nvmf.config())


def _sock_calls(engine: Engine) -> Calls:
    calls: Calls = [{"method": "sock_set_default_impl", "params": {"impl_name": engine.options.sock_default}}]
    for name, options in engine.options.sock.items():
        calls.append({"method": "sock_impl_set_options", "params": {"impl_name": name} | options})
    return calls


def _iobuf_calls(engine: Engine) -> Calls:
    return [{"method": "iobuf_set_options", "params": dict(engine.options.iobuf)}]


def _keyring_calls(engine: Engine) -> Calls:
    return engine.keyring.config()


_CONFIGS: Final[dict[str, Callable[[Engine], Calls]]] = {
    "scheduler": lambda _: [{"method": "framework_set_scheduler", "params": {"name": "static"}}],
    "sock": _sock_calls,
    "iobuf": _iobuf_calls,
    "keyring": _keyring_calls,
    "bdev": bdev_calls,
    "nvmf": _nvmf_calls,
}


@method(
    "framework_get_config",
    RUNTIME,
    Param("name", "string", required=True),
    Param("with_batches", "boolean"),
    decode_error=(INVALID_PARAMS, "Invalid arguments"),
)
async def framework_get_config(engine: Engine, p: Params) -> object:
    """The calls that make one subsystem what it is; never batched here."""
    if p["name"] not in _CONFIGS:
        raise RpcFault(INVALID_PARAMS, f"Subsystem '{p['name']}' not found")
    return _CONFIGS[p["name"]](engine)


def _load(engine: Engine) -> tuple[int, int]:
    """Nanoseconds busy and idle since the start."""
    busy = time.process_time_ns()
    return busy, max(0, time.monotonic_ns() - engine.started_ns - busy)


@method(
    "framework_get_reactors",
    RUNTIME,
    decode_error=(INVALID_PARAMS, "`framework_get_reactors` requires no arguments"),
)
async def framework_get_reactors(engine: Engine, p: Params) -> object:  # noqa: ARG001 - it has no parameters
    """One reactor: the loop, which sleeps when there is nothing to do."""
    busy, idle = _load(engine)
    elapsed = time.monotonic_ns() - engine.started_ns
    reactor = {
        "lcore": 0,
        "numa_id": 0,
        "tid": threading.get_native_id(),
        "busy": busy,
        "idle": idle,
        "in_interrupt": True,
        "irq": 0,
        "sys": 0,
        "usr": 0,
        "lw_threads": [{"name": "app_thread", "id": 1, "cpumask": "1", "elapsed": elapsed}],
    }
    return {"tick_rate": TICKS_PER_SECOND, "pid": os.getpid(), "reactors": [reactor]}


@method(
    "thread_get_stats",
    RUNTIME,
    decode_error=(INVALID_PARAMS, "'thread_get_stats' requires no arguments"),
)
async def thread_get_stats(engine: Engine, p: Params) -> object:  # noqa: ARG001 - it has no parameters
    """The loop as one thread."""
    busy, idle = _load(engine)
    thread = {"name": "app_thread", "id": 1, "cpumask": "1", "busy": busy, "idle": idle}
    pollers = {"active_pollers_count": 0, "timed_pollers_count": 0, "paused_pollers_count": 0}
    return {"tick_rate": TICKS_PER_SECOND, "threads": [thread | pollers]}


@method(
    "spdk_kill_instance",
    RUNTIME,
    Param(
        "sig_name",
        "enum",
        required=True,
        values=("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGKILL", "SIGUSR1"),
    ),
)
async def spdk_kill_instance(engine: Engine, p: Params) -> object:  # noqa: ARG001 - the process is the engine
    """Send the process a signal; INT and TERM end it in order."""
    os.kill(os.getpid(), signal.Signals[p["sig_name"]])
    return True
