"""The NVMe-oF target of the embedded engine, NVMe/TCP only.

How the parts fit::

    TcpQueue (tcp.py: PDUs, R2T, digests) -> commands.py -> Controller (controller.py) -> admin: identify, logs,
                                                    |                                     features
                                                    \\-> io.py -> Namespace (subsystem.py) -> bdev
    NvmfTarget (target.py): transports, listeners, subsystems, referrals, the discovery log

Behaviour follows SPDK v26.05 lib/nvmf; where this package differs, the place says why.
"""
